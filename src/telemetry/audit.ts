import type { Alarm, Clock } from '../clock.ts';
import { messageOf } from '../errors.ts';
import type { EventBus, Events, RefusalReason, Who } from '../events.ts';
import type { Log } from '../log.ts';
import { AuditFile } from './audit-file.ts';
import { REPEAT_MS, Repeats } from './repeats.ts';
import type { AuditFigures } from './sources.ts';

/** What is said of a pod. */
export interface AuditedPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** '' for a pod without one. */
  readonly serviceAccount: string;
}

export interface AuditTools {
  readonly events: EventBus;
  readonly clock: Clock;
  readonly log: Log;
  /** The pod with this UID, or this hash, in its cgroup path, departed ones included. */
  readonly describePod: (uid: string) => AuditedPod | undefined;
}

/** One line. The names are fixed; what is not known is left out. */
interface AuditLine {
  readonly event: 'issued' | 'served' | 'refused' | 'commanded';
  readonly command?: string;
  readonly id?: string;
  readonly outcome?: string;
  readonly kind?: string;
  readonly spiffe_id?: string;
  readonly serial?: string;
  readonly kid?: string;
  readonly not_after?: string;
  readonly pid?: number;
  readonly uid?: number;
  readonly pod?: { readonly namespace?: string; readonly name?: string; readonly uid: string };
  readonly service_account?: string;
  readonly method?: string;
  readonly reason?: string;
  readonly detail?: string;
  readonly count?: number;
}

/** Refused before anything was learnt of the caller but its user: whoever floods the agent changes its pid with each attempt. */
const FLOODS: ReadonlySet<RefusalReason> = new Set(['too_many_connections', 'too_many_calls', 'connection_rate', 'call_rate', 'descriptors']);

const LONGEST_DETAIL = 512;

/** A program that forks for each attempt would otherwise fill the disk. */
const MOST_PIDS = 16;

/**
 * Who was given which identity, and who was not: JSON lines, apart from the log. The same SVID given to the same process again,
 * and the same refusal, are written once in ten seconds, then once more with how often it happened meanwhile (`count`). Of the
 * processes of one user or pod, the first sixteen that are refused for one reason have lines of their own.
 */
export class AuditLog {
  readonly #file: AuditFile;
  readonly #tools: AuditTools;
  readonly #repeats: Repeats<AuditLine>;
  readonly #stops: readonly (() => void)[];
  /** Of the last ten seconds. */
  readonly #refusedPids = new Map<string, Set<number | undefined>>();
  #forgetting: Alarm | undefined;

  constructor(path: string, tools: AuditTools) {
    const { events, clock, log } = tools;
    this.#tools = tools;
    this.#file = new AuditFile(path, {
      clock,
      onFailure: (error, retryMs) =>
        log.error({ event: 'audit.failed', path, err: messageOf(error), duration_ms: retryMs }, 'the audit log cannot be written; it is tried again'),
    });
    this.#repeats = new Repeats(clock, (line, count) => this.#write({ ...line, count }));
    this.#stops = [
      events.on('issued', (fact) => this.#issued(fact)),
      events.on('served', (fact) => this.#served(fact)),
      events.on('refused', (fact) => this.#refused(fact)),
      events.on('authorityCommanded', ({ command, kind, id, uid, pid, outcome, detail }) =>
        this.#write({
          event: 'commanded',
          command,
          ...(kind === undefined ? {} : { kind }),
          ...(id === undefined ? {} : { id }),
          pid,
          uid,
          outcome,
          ...(detail === undefined ? {} : { detail: detail.slice(0, LONGEST_DETAIL) }),
        }),
      ),
    ];
  }

  get figures(): AuditFigures {
    return this.#file.figures;
  }

  /** Goes on in the file that has the path now: for whoever has moved the old one away. */
  reopen(): void {
    this.#file.reopen();
  }

  /** Writes what waits, for a second at most. */
  async close(): Promise<void> {
    for (const stop of this.#stops) stop();
    this.#forgetting?.cancel();
    this.#repeats.close();
    await this.#file.close();
  }

  #issued({ kind, spiffeId, serial, kid, notAfter, podUid }: Events['issued']): void {
    this.#write({
      event: 'issued',
      kind,
      spiffe_id: spiffeId,
      ...(serial === undefined ? {} : { serial }),
      ...(kid === undefined ? {} : { kid }),
      not_after: iso(notAfter),
      ...this.#podFields(podUid),
    });
  }

  #served({ kind, method, svids, ...who }: Events['served']): void {
    for (const { spiffeId, serial, notAfter } of svids) {
      const key = `${kind} ${who.pid} ${who.uid} ${spiffeId} ${serial} ${notAfter}`;
      if (!this.#repeats.isFirst(key)) continue;
      const svid = { kind, spiffe_id: spiffeId, ...(serial === undefined ? {} : { serial }), not_after: iso(notAfter) };
      this.#first(key, { event: 'served', ...svid, ...this.#whoFields(who), method });
    }
  }

  #refused({ reason, method, spiffeId, detail, ...who }: Events['refused']): void {
    const group = `${reason} ${method} ${who.uid} ${who.podUid} ${spiffeId}`;
    const key = FLOODS.has(reason) || !this.#mayTellApart(group, who.pid) ? group : `${group} ${who.pid}`;
    if (!this.#repeats.isFirst(key)) return;
    this.#first(key, {
      event: 'refused',
      ...(spiffeId === undefined ? {} : { spiffe_id: spiffeId }),
      ...this.#whoFields(who),
      ...(method === undefined ? {} : { method }),
      reason,
      ...(detail === undefined ? {} : { detail: detail.slice(0, LONGEST_DETAIL) }),
    });
  }

  /** The processes of one user, or pod, that are refused for one reason have lines of their own until they are many. */
  #mayTellApart(group: string, pid: number | undefined): boolean {
    const pids = this.#refusedPids.get(group) ?? new Set();
    if (this.#refusedPids.size === 0) this.#forgetting = this.#tools.clock.after(REPEAT_MS, () => this.#refusedPids.clear());
    this.#refusedPids.set(group, pids);
    if (pids.has(pid)) return true;
    if (pids.size >= MOST_PIDS) return false;
    pids.add(pid);
    return true;
  }

  #first(key: string, line: AuditLine): void {
    this.#repeats.remember(key, line);
    this.#write(line);
  }

  #whoFields({ pid, uid, podUid }: Partial<Who>): Partial<AuditLine> {
    return { ...(pid === undefined ? {} : { pid }), ...(uid === undefined ? {} : { uid }), ...this.#podFields(podUid) };
  }

  #podFields(podUid: string | undefined): Partial<AuditLine> {
    if (podUid === undefined) return {};
    const pod = this.#tools.describePod(podUid);
    if (pod === undefined) return { pod: { uid: podUid } };
    const { namespace, name, uid, serviceAccount } = pod;
    return { pod: { namespace, name, uid }, ...(serviceAccount === '' ? {} : { service_account: serviceAccount }) };
  }

  #write(line: AuditLine): void {
    this.#file.append(JSON.stringify({ time: iso(this.#tools.clock.now()), ...line }));
  }
}

/**
 * Opens the audit log at `path` (`-`: standard output). That it cannot be written ends no agent and holds nobody up: it is told in
 * the log, counted, and tried again.
 */
export function openAudit(path: string, tools: AuditTools): AuditLog {
  return new AuditLog(path, tools);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
