/** The selector by which an entry belongs to one pod: `k8s:pod-uid:<uid>`. */
export const POD_UID = 'k8s:pod-uid:';
