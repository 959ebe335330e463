/** What a traffic process tells on stdout, one JSON line each second and one at its end. All counts are since its start. */
export interface Figures {
  /** How long connections have been made, in milliseconds. */
  readonly ranMs: number;
  /** Mutual TLS handshakes that were right at both ends. */
  readonly connections: number;
  /** Handshakes that were not, by what both ends said. */
  readonly failures: Readonly<Record<string, number>>;
  /** When the first and the last of them were, milliseconds since the Unix epoch. */
  readonly failedFrom?: number;
  readonly failedUntil?: number;
  /** The smallest remaining life of a certificate that was presented at either end, in milliseconds; what its peer saw. */
  readonly leastLifeMs?: number;
  /** The slowest connection that was right, from the first packet to the server's answer, in milliseconds. */
  readonly slowestMs: number;
  /** The longest time for which the process of the workloads itself was not run by a busy machine, in milliseconds. */
  readonly longestStallMs: number;
  /** Different leaves, different roots that leaves stood under, that peers have seen. */
  readonly leaves: number;
  readonly issuers: number;
  readonly watchers: Watched;
  /** JWT-SVIDs that were fetched and found valid by the agent; what failed, by code. */
  readonly tokens: number;
  readonly tokenFailures: Readonly<Record<string, number>>;
}

/** What all streams have seen. */
export interface Watched {
  readonly updates: number;
  /** The smallest remaining life of what any of them held, looked at ten times a second, in milliseconds. */
  readonly leastLifeMs?: number;
  /** How often a stream was lost and went on, by code. */
  readonly interruptions: Readonly<Record<string, number>>;
  /** Longest time until the next message after an interruption, in milliseconds. */
  readonly longestGapMs: number;
  /** Streams that are waiting for their next message after an interruption. */
  readonly broken: number;
  /** The smallest and the largest number of roots that a watcher holds now. */
  readonly roots: readonly [number, number];
}
