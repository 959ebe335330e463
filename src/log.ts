import { pino, type DestinationStream, type Logger } from 'pino';

/** Fixed field names, so that one query works over all lines. No field ever holds a key, a token or a certificate's private half. */
export interface LogFields {
  /** What happened, as a stable name: `x509_svid.renewed`. */
  event: string;
  spiffe_id?: string;
  trust_domain?: string;
  pid?: number;
  uid?: number;
  gid?: number;
  method?: string;
  reason?: string;
  count?: number;
  path?: string;
  serial?: string;
  kid?: string;
  not_after?: string;
  duration_ms?: number;
  err?: string;
  config?: string;
  version?: string;
  limits?: Record<string, number>;
}

export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** One JSON line per event on standard error, or on `destination`. */
export function createLog(level: LogLevel, destination?: DestinationStream): Log {
  const options = {
    level,
    base: null,
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    // A second net below the fixed fields: should a secret's usual name ever be logged, it is cut.
    redact: { paths: ['key', 'token', 'svid', 'privateKey', 'private_key', '*.key', '*.token', '*.svid', '*.privateKey'], censor: '[redacted]' },
  };
  const logger: Logger = pino(options, destination ?? pino.destination({ dest: 2, sync: true }));
  return logger;
}

/** Writes down what was thrown where nothing should be. Never throws. */
export function logMistake(log: Log, error: unknown): void {
  log.error({ event: 'agent.mistake', err: error instanceof Error ? (error.stack ?? error.message) : String(error) }, 'an unexpected error was caught; please report it');
}
