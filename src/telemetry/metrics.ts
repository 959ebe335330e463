import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Clock } from '../clock.ts';
import { REFUSAL_REASONS, type EventBus } from '../events.ts';
import { addFigures } from './figures.ts';
import { countersAt } from './instruments.ts';
import { addProcessMetrics } from './process-metrics.ts';
import type { ReadinessSource } from './readiness.ts';
import type { MetricSources } from './sources.ts';

export interface MetricsOptions {
  readonly events: EventBus;
  readonly clock: Clock;
  readonly sources: MetricSources;
  readonly readiness: ReadinessSource;
  /** Of Signet: `0.1.0`. */
  readonly version: string;
  readonly descriptorLimit: number;
}

const KINDS = ['x509', 'jwt'] as const;
const OUTCOMES = ['pod', 'process', 'refused'] as const;

/** Seconds. What is done on the node takes milliseconds; what waits for somebody else, seconds. */
const SIGNING_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5];
const WAITING_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Names of upstreams that are told apart. There is one; a label must be bounded whatever is published. */
const MOST_UPSTREAMS = 8;

/**
 * Everything that can be measured, in the Prometheus text format. Counts follow events; all else is read when it is asked for.
 * Every label's values are a closed set, and each is there with 0 from the start, so that a first increase can be seen.
 */
export class Metrics {
  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE;
  readonly #registry = new Registry();
  readonly #stops: (() => void)[] = [];
  #pending: Promise<string> | undefined;

  constructor(options: MetricsOptions) {
    const { clock, sources, readiness, version, descriptorLimit } = options;
    this.#followIssuance(options);
    this.#followCallers(options.events);
    this.#followAuthorities(options.events);
    this.#followUpstreams(options);
    addFigures(this.#registry, sources, readiness, clock);
    addProcessMetrics(this.#registry, clock, descriptorLimit);
    new Gauge({ name: 'signet_build_info', help: 'Always 1; the versions are its labels.', labelNames: ['version', 'node'], registers: [this.#registry] })
      .set({ version, node: process.versions.node }, 1);
  }

  /** Several who ask at once get one answer. */
  text(): Promise<string> {
    this.#pending ??= this.#registry.metrics().finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  close(): void {
    for (const stop of this.#stops) stop();
    this.#registry.clear();
  }

  #followIssuance({ events }: MetricsOptions): void {
    const issued = this.#counter('signet_svids_issued_total', 'SVIDs that were signed.', 'kind', 'step');
    const failed = this.#counter('signet_svid_issuance_failures_total', 'SVIDs that could not be signed; each is tried again.', 'kind');
    const signing = this.#histogram('signet_svid_signing_duration_seconds', 'Time for an SVID that was signed, its key pair included.', SIGNING_BUCKETS, 'kind');
    const answered = { hit: 0, miss: 0 };
    for (const kind of KINDS) {
      for (const step of ['first', 'renewal']) issued.inc({ kind, step }, 0);
      failed.inc({ kind }, 0);
      signing.zero({ kind });
    }
    const help = 'JWT-SVIDs that were asked for; a hit is answered with a token that was there.';
    countersAt(this.#registry, 'signet_jwt_cache_requests_total', help, 'result', () => Object.entries(answered));
    this.#stops.push(
      events.on('issued', ({ kind, renewal, durationMs }) => {
        issued.inc({ kind, step: renewal ? 'renewal' : 'first' });
        signing.observe({ kind }, durationMs / 1000);
      }),
      events.on('issuanceFailed', ({ kind }) => failed.inc({ kind })),
      // Thousands in a second: a number, not an instrument.
      events.on('jwtAnswered', ({ hit }) => void (answered[hit ? 'hit' : 'miss'] += 1)),
    );
  }

  #followCallers(events: EventBus): void {
    const refused = this.#counter('signet_refusals_total', 'Connections, calls and callers that were refused.', 'reason');
    const accepted = this.#counter('signet_connections_accepted_total', 'Connections that were taken.');
    const attested = this.#counter('signet_attestations_total', 'Callers that were recognised, or could not be.', 'outcome');
    const attesting = this.#histogram('signet_attestation_duration_seconds', 'Time to recognise a caller, its waiting included.', WAITING_BUCKETS, 'outcome');
    const first = this.#histogram('signet_first_svid_duration_seconds', 'Time from the acceptance of a connection to its first SVID.', WAITING_BUCKETS, 'kind');
    for (const reason of REFUSAL_REASONS) refused.inc({ reason }, 0);
    for (const outcome of OUTCOMES) {
      attested.inc({ outcome }, 0);
      attesting.zero({ outcome });
    }
    for (const kind of KINDS) first.zero({ kind });
    this.#stops.push(
      events.on('refused', ({ reason }) => refused.inc({ reason })),
      events.on('connected', () => accepted.inc()),
      events.on('attested', ({ outcome, durationMs }) => {
        attested.inc({ outcome });
        attesting.observe({ outcome }, durationMs / 1000);
      }),
      events.on('firstSvid', ({ kind, durationMs }) => first.observe({ kind }, durationMs / 1000)),
    );
  }

  #followAuthorities(events: EventBus): void {
    const rotated = this.#counter('signet_authority_rotations_total', 'Signing keys that were prepared, activated or retired.', 'kind', 'step');
    const failed = this.#counter('signet_authority_failures_total', 'Rotations of signing keys that failed; each is tried again.');
    for (const kind of KINDS) for (const step of ['prepared', 'activated', 'retired']) rotated.inc({ kind, step }, 0);
    this.#stops.push(
      events.on('authorityRotated', ({ kind, step }) => rotated.inc({ kind, step })),
      events.on('authorityFailed', () => failed.inc()),
    );
  }

  #followUpstreams({ events, clock }: MetricsOptions): void {
    const answering = this.#histogram('signet_upstream_request_duration_seconds', 'Time for what the upstream answered.', WAITING_BUCKETS, 'upstream');
    const failed = this.#counter('signet_upstream_failures_total', 'Requests to the upstream that failed; each is tried again.', 'upstream');
    const answeredAt = new Map<string, number>();
    const known = new Set<string>();
    const labelOf = (upstream: string): string => (known.has(upstream) || known.size < MOST_UPSTREAMS ? (known.add(upstream), upstream) : 'other');
    new Gauge({
      name: 'signet_upstream_last_success_age_seconds',
      help: 'Time since the upstream last answered.',
      labelNames: ['upstream'],
      registers: [this.#registry],
      collect() {
        for (const [upstream, at] of answeredAt) this.set({ upstream }, (clock.monotonic() - at) / 1000);
      },
    });
    this.#stops.push(
      events.on('upstreamAnswered', ({ upstream, durationMs }) => {
        const label = labelOf(upstream);
        answeredAt.set(label, clock.monotonic());
        failed.inc({ upstream: label }, 0);
        answering.observe({ upstream: label }, durationMs / 1000);
      }),
      events.on('upstreamFailed', ({ upstream }) => failed.inc({ upstream: labelOf(upstream) })),
    );
  }

  #counter(name: string, help: string, ...labelNames: string[]): Counter {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  #histogram(name: string, help: string, buckets: number[], ...labelNames: string[]): Histogram {
    return new Histogram({ name, help, buckets, labelNames, registers: [this.#registry] });
  }
}
