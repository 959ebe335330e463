import type { Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { Log } from '../log.ts';
import type { ReadinessSource } from './readiness.ts';
import type { TelemetryServer } from './server.ts';
import type { MetricSources } from './sources.ts';

export interface TelemetryOptions {
  readonly address: { readonly host: string; readonly port: number };
  readonly events: EventBus;
  readonly clock: Clock;
  readonly log: Log;
  readonly readiness: ReadinessSource;
  readonly sources: MetricSources;
  /** False once the agent does not work any more although its process runs. */
  readonly live: () => boolean;
  readonly version: string;
  readonly descriptorLimit: number;
}

/** Metrics and health that are served. */
export interface Telemetry {
  /** Where it listens; undefined while the agent that this one follows still does. */
  readonly address: TelemetryServer['address'];
  close(): void;
}

/**
 * Serves metrics and health on `address`. What is needed for it is loaded here, so that an agent without it does not pay for it.
 * Counts begin here: to be called before the socket is opened.
 *
 * @throws SignetError `unavailable` when the address can never be listened on.
 */
export async function openTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  const [{ Metrics }, { TelemetryServer }] = await Promise.all([import('./metrics.ts'), import('./server.ts')]);
  const metrics = new Metrics(options);
  const server = new TelemetryServer({ ...options, metrics });
  const close = (): void => {
    server.close();
    metrics.close();
  };
  try {
    await server.open();
  } catch (error) {
    close();
    throw error;
  }
  return {
    get address() {
      return server.address;
    },
    close,
  };
}
