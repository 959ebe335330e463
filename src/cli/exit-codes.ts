/** What a command's exit code says. Scripts may rely on them. */
export const EXIT = {
  ok: 0,
  refused: 1,
  usage: 2,
  unreachable: 3,
  noIdentity: 4,
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** As `--help` shows them. */
export const EXIT_MEANINGS: Readonly<Record<ExitCode, string>> = {
  [EXIT.ok]: 'done',
  [EXIT.refused]: 'refused or failed',
  [EXIT.usage]: 'wrong usage or configuration',
  [EXIT.unreachable]: 'the endpoint cannot be reached or did not answer in time',
  [EXIT.noIdentity]: 'the agent has no identity for this process',
  [EXIT.interrupted]: 'interrupted before it was done',
};
