import type { Facts, NodeFacts, PodFacts } from '../../../src/registration/rules/facts.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';

/** A pod with something in every field. */
export const POD: PodFacts = {
  uid: '3c1b0c2e-6e0d-4f5a-9a53-2f3f4c1d7e11',
  name: 'web-7d4b9-x2x4z',
  namespace: 'shop',
  generateName: 'web-7d4b9-',
  serviceAccount: 'web',
  nodeName: 'node-1',
  hostname: 'web-host',
  subdomain: 'web-sub',
  hostNetwork: false,
  priorityClassName: 'high',
  runtimeClassName: 'gvisor',
  labels: { app: 'web', 'example.org/team': 'Blue', empty: '', evil: '../x' },
  annotations: { path: 'a/b', dots: '../x', plain: 'p' },
};

export const NODE: NodeFacts = {
  uid: 'node-uid',
  labels: { zone: 'eu-1a' },
  annotations: { rack: 'r7' },
  providerId: 'aws:///eu-1a/i-0abc',
  podCidr: '10.1.0.0/24',
};

export function pod(more: Partial<PodFacts> = {}): PodFacts {
  return { ...POD, ...more };
}

export function facts(more: Partial<Facts> = {}): Facts {
  return {
    trustDomain: parseTrustDomain('example.org'),
    clusterName: 'prod-eu1',
    clusterDomain: 'cluster.local',
    pod: POD,
    node: NODE,
    namespaceLabels: { env: 'prod' },
    ...more,
  };
}
