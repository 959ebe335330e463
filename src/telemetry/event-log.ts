import type { Clock } from '../clock.ts';
import type { EventBus, Events } from '../events.ts';
import type { Log } from '../log.ts';
import { Repeats } from './repeats.ts';

/** A refusal that repeats is written once in this time, with how often it happened meanwhile: a flood must not fill the disk. */
const REPEAT_MS = 10_000;
/** Kinds of refusal that are remembered; whoever makes more of them than this has written enough lines. */
const MOST_KINDS = 1_024;

/** Writes the facts that an operator reads, one line each. */
export function logEvents(events: EventBus, log: Log, clock: Clock): void {
  const refusals = new RepeatedRefusals(log, clock);
  events.on('refused', (fact) => refusals.tell(fact));
  events.on('issued', (fact) => logIssued(log, fact));
  events.on('issuanceFailed', ({ kind, spiffeId, error, retryMs }) =>
    log.warn({ event: `${kind}_svid.failed`, spiffe_id: spiffeId, err: error, duration_ms: Math.round(retryMs) }, 'an SVID could not be issued; it is tried again'),
  );
  events.on('authorityRotated', ({ kind, step, id, notAfter }) =>
    log.info({ event: `${kind}_authority.${step}`, ...(kind === 'jwt' ? { kid: id } : { serial: id }), not_after: iso(notAfter) }, `a signing key was ${step}`),
  );
  events.on('authorityCommanded', (fact) => logCommanded(log, fact));
  events.on('authorityRecovered', () => log.info({ event: 'authority.recovered' }, 'the keys are as they should be again'));
  events.on('authorityFailed', ({ error, retryMs }) =>
    log.error({ event: 'authority.failed', err: error, duration_ms: retryMs }, 'the keys could not be rotated; the old ones go on and it is tried again'),
  );
  events.on('bundleChanged', ({ trustDomain, x509Authorities, jwtAuthorities }) =>
    log.info({ event: 'bundle.changed', trust_domain: trustDomain, count: x509Authorities + jwtAuthorities }, 'the trust bundle has changed'),
  );
  events.on('upstreamFailed', ({ upstream, error, retryMs }) =>
    log.warn({ event: 'upstream.failed', reason: upstream, err: error, duration_ms: Math.round(retryMs) }, 'the upstream does not answer; what there is goes on and it is tried again'),
  );
  events.on('ruleRefused', ({ kind, name, problem }) => log.warn({ event: 'rule.refused', path: `${kind}/${name}`, err: problem }, 'a rule does not count'));
  const conflicts = new Repeats<string>(clock, (hash, count) => logConflict(log, hash, count));
  events.on('podHashConflict', ({ hash }) => {
    if (!conflicts.isFirst(hash)) return;
    conflicts.remember(hash, hash);
    logConflict(log, hash);
  });
  events.on('entriesChanged', ({ count }) => log.info({ event: 'entries.changed', count }, 'the entries have changed'));
}

function logCommanded(log: Log, { command, kind, id, uid, pid, outcome, detail }: Events['authorityCommanded']): void {
  const key = id === undefined ? {} : kind === 'jwt' ? { kid: id } : { serial: id };
  const fields = { event: `authority.${command}`, reason: outcome, ...key, uid, pid, ...(detail === undefined ? {} : { err: detail }) };
  if (outcome === 'done') log.info(fields, 'an operator has given an order about the signing keys');
  else log.warn(fields, "an operator's order about the signing keys was not obeyed");
}

function logConflict(log: Log, hash: string, count?: number): void {
  const fields = { event: 'pod.conflict', reason: hash, ...(count === undefined ? {} : { count }) };
  log.error(fields, 'two pods claim to be one static pod; neither is believed');
}

function logIssued(log: Log, fact: Events['issued']): void {
  const fields = {
    event: `${fact.kind}_svid.${fact.renewal ? 'renewed' : 'issued'}`,
    spiffe_id: fact.spiffeId,
    not_after: iso(fact.notAfter),
    ...(fact.serial === undefined ? {} : { serial: fact.serial }),
    ...(fact.kid === undefined ? {} : { kid: fact.kid }),
  };
  if (fact.kind === 'x509') log.info(fields, 'an SVID was issued');
  else log.debug(fields, 'an SVID was issued');
}

interface Repeated {
  readonly since: number;
  count: number;
}

class RepeatedRefusals {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #seen = new Map<string, Repeated>();

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  tell(fact: Events['refused']): void {
    const key = `${fact.reason}\n${fact.method}\n${fact.uid}`;
    const known = this.#seen.get(key);
    if (known !== undefined) {
      known.count += 1;
      return;
    }
    if (this.#seen.size >= MOST_KINDS) return;
    this.#seen.set(key, { since: this.#clock.monotonic(), count: 0 });
    this.#write(fact, undefined);
    this.#clock.after(REPEAT_MS, () => this.#sum(key, fact));
  }

  #sum(key: string, fact: Events['refused']): void {
    const count = this.#seen.get(key)?.count ?? 0;
    this.#seen.delete(key);
    if (count > 0) this.#write(fact, count);
  }

  #write(fact: Events['refused'], count: number | undefined): void {
    const fields = {
      event: 'refused',
      reason: fact.reason,
      ...(fact.method === undefined ? {} : { method: fact.method }),
      ...(fact.uid === undefined ? {} : { uid: fact.uid }),
      ...(fact.pid === undefined ? {} : { pid: fact.pid }),
      ...(fact.detail === undefined ? {} : { err: fact.detail }),
      ...(count === undefined ? {} : { count }),
    };
    this.#log.warn(fields, count === undefined ? 'a caller was refused' : 'callers went on being refused');
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
