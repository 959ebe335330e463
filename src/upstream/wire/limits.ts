/** Bounds of one request. */
export interface WireLimits {
  /** For name look-up, TCP and TLS together, in milliseconds. Default 5,000. */
  readonly connectMs: number;
  /** For a whole request, in milliseconds. Default 15,000. */
  readonly answerMs: number;
  /** Largest answer. Default 1 MiB. */
  readonly bytes: number;
}

export const DEFAULT_LIMITS: WireLimits = { connectMs: 5_000, answerMs: 15_000, bytes: 1_048_576 };
