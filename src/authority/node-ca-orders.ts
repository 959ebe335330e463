import { X509Certificate } from 'node:crypto';
import { SignetError, messageOf } from '../errors.ts';
import type { Clock } from '../clock.ts';
import type { How, KindOrders } from './key-orders.ts';
import { iso, replacedX509 } from './key-plans.ts';
import { usableFrom, type KnownRoot } from './known-roots.ts';
import type { NodeCa } from './node-ca.ts';
import { refused, type KeyFact, type KeyState, type OrderResult, type RefusedOrder, type RootFact } from './orders.ts';

/** A CA on the node and what lies above it, as orders see and change it. */
export interface NodeCaOwner {
  readonly clock: Clock;
  /** What it takes until all nodes have a new root, in milliseconds. */
  readonly overlapMs: number;
  /** In the order in which they were made. */
  cas(): readonly NodeCa[];
  roots(): readonly KnownRoot[];
  /** The one that signs now. */
  active(): NodeCa | undefined;
  /** Has the CA above sign a new one, of which nobody knows yet; its roots are known from then on. Rejects as that CA does. */
  ask(signal: AbortSignal): Promise<Omit<NodeCa, 'activatesAt'>>;
  /** Takes these over, without waiting for anything; where none is left, another is asked for. */
  adopt(cas: readonly NodeCa[]): void;
  keep(): Promise<void>;
  /** Has all leaves replaced. */
  replace(): void;
}

/** An order is not to wait for longer than this for a CA that is away. */
const ASK_MS = 10_000;

const OWN_RULE = 'node CAs follow one another by themselves';

/** The orders about the CA of a node: the root above it is another's, and leaves the bundle when that one says so. */
export class NodeCaOrders implements KindOrders {
  readonly #owner: NodeCaOwner;

  constructor(owner: NodeCaOwner) {
    this.#owner = owner;
  }

  facts(): readonly KeyFact[] {
    const active = this.#owner.active();
    return this.#owner.cas().map((ca) => this.#fact(ca, active));
  }

  roots(): readonly RootFact[] {
    return this.#owner.roots().map(({ certificate, since, leftAt, notAfter }) => {
      const parsed = new X509Certificate(certificate);
      return {
        id: parsed.fingerprint256.replaceAll(':', '').toLowerCase(),
        subject: parsed.subject.replaceAll('\n', ', '),
        since,
        usableFrom: since + this.#owner.overlapMs,
        ...(leftAt === undefined ? {} : { leftAt }),
        notAfter,
      };
    });
  }

  async prepare(): Promise<OrderResult> {
    const where = 'have the new root added where the CA above is kept (with authority.type "files": in authority.files.roots)';
    const next = `${where}; "signet authority show" tells since when it is in the bundle, and from when on a CA under it may sign`;
    return refused('not_now', 'the root is not the agent\'s own: it has none to prepare', next);
  }

  async activate({ dryRun, force }: How): Promise<OrderResult> {
    const { clock } = this.#owner;
    const active = this.#owner.active();
    const waiting = this.#owner.cas().find((ca) => ca.activatesAt > Math.max(clock.now(), active?.activatesAt ?? 0));
    if (waiting === undefined) {
      const next = 'to change the CA above, put the new certificate and key in the place of the old ones, its root first';
      return refused('not_now', `no node CA waits to be activated; ${OWN_RULE}`, next);
    }
    const usable = this.#usableFrom(waiting);
    if (!force && clock.now() < usable) {
      const next = 'it is activated by itself then; to do so now, add --force: whoever does not have its root refuses what it signs';
      return refused('not_now', `the root above ${idOf(waiting)} may not be everywhere before ${iso(usable)}`, next);
    }
    const says = [`${idOf(waiting)} signs from now on`];
    if (dryRun) return { kind: 'planned', key: this.#fact(waiting, active), says };
    const now = { ...waiting, activatesAt: clock.now() };
    return this.#obey(this.#owner.cas().map((ca) => (ca === waiting ? now : ca)), now, says);
  }

  async taint(id: string, { dryRun, force }: How): Promise<OrderResult> {
    const tainted = this.#find(id);
    const isActive = tainted === this.#owner.active();
    const fact = this.#fact(tainted, this.#owner.active());
    const says = this.#saysOfTaint(tainted, isActive, force);
    if (dryRun) return { kind: 'planned', key: fact, says };
    const successor = isActive && !force ? await this.#successor() : undefined;
    if (successor !== undefined && 'why' in successor) return successor;
    const others = this.#owner.cas().filter(({ publicKey }) => publicKey !== tainted.publicKey);
    this.#owner.adopt(successor === undefined ? others : [...others, successor]);
    this.#owner.replace();
    await this.#owner.keep();
    return { kind: 'done', key: { ...fact, state: 'tainted', leavesAt: this.#owner.clock.now() }, says };
  }

  async revoke(id: string): Promise<OrderResult> {
    const ca = this.#find(id);
    const why = `${id} is the CA of this node: it is in no bundle, and its chain verifies until ${iso(ca.notAfter)}`;
    return refused('not_now', why, `have it replaced ("signet authority taint ${id}"), and, if its key is known to others, the CA above too`);
  }

  #fact(ca: NodeCa, active: NodeCa | undefined): KeyFact {
    const state = stateOf(ca, active);
    const usable = state === 'prepared' ? { usableFrom: this.#usableFrom(ca) } : {};
    return { kind: 'x509', id: idOf(ca), state, ...usable, activatesAt: ca.activatesAt, leavesAt: ca.notAfter, notAfter: ca.notAfter };
  }

  #find(id: string): NodeCa {
    const found = this.#owner.cas().find((ca) => idOf(ca) === id);
    if (found === undefined) throw new RangeError(`there is no node CA ${id}`);
    return found;
  }

  #usableFrom(ca: Pick<NodeCa, 'root'>): number {
    return usableFrom(this.#owner.roots(), ca.root, this.#owner.overlapMs);
  }

  #saysOfTaint(ca: NodeCa, isActive: boolean, force: boolean): readonly string[] {
    const follows = force
      ? 'nothing is signed until the CA above has signed another node CA'
      : 'the CA above is asked for another node CA, which signs at once';
    return [
      `${idOf(ca)} never signs again; its key is deleted`,
      ...(isActive ? [follows] : []),
      replacedX509(),
      `whoever has its key can sign what others believe until ${iso(ca.notAfter)}: to end that sooner, the CA above has to be replaced`,
    ];
  }

  /** Another node CA that signs at once. What cannot be had must not cost the one that there is. */
  async #successor(): Promise<NodeCa | RefusedOrder> {
    const next = 'see "signet status" for what fails; with --force it is given up all the same, and nothing is signed until there is another';
    const { clock } = this.#owner;
    const root = this.#owner.active()?.root;
    try {
      const ca = await this.#ask();
      const usable = root !== undefined && ca.root.equals(root) ? 0 : this.#usableFrom(ca);
      if (clock.now() >= usable) return { ...ca, activatesAt: clock.now() };
      const why = `another node CA would stand under a root that may not be everywhere before ${iso(usable)}`;
      return refused('not_now', why, 'try again then, or with --force now');
    } catch (error) {
      return refused('not_now', `there is no other node CA to be had: ${messageOf(error)}`, next);
    }
  }

  async #ask(): Promise<Omit<NodeCa, 'activatesAt'>> {
    const late = new AbortController();
    const alarm = this.#owner.clock.after(ASK_MS, () =>
      late.abort(new SignetError('authority_unavailable', `the CA above has not answered within ${ASK_MS / 1000} s`)),
    );
    try {
      return await this.#owner.ask(late.signal);
    } finally {
      alarm.cancel();
    }
  }

  async #obey(cas: readonly NodeCa[], ca: NodeCa, says: readonly string[]): Promise<OrderResult> {
    this.#owner.adopt(cas);
    await this.#owner.keep();
    return { kind: 'done', key: this.#fact(ca, this.#owner.active()), says };
  }
}

function idOf({ subjectKeyId }: NodeCa): string {
  return subjectKeyId.toString('hex');
}

function stateOf(ca: NodeCa, active: NodeCa | undefined): KeyState {
  if (ca === active) return 'active';
  return active === undefined || ca.activatesAt > active.activatesAt ? 'prepared' : 'old';
}
