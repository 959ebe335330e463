import type { Alarm, Clock } from '../clock.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Random } from '../random.ts';
import type { PodSource } from './pod-index.ts';
import type { ListPods } from './pod-lookup.ts';
import type { Pod } from './pod.ts';
import type { ChangeListener, Stored } from './store.ts';

/** The kubelet has no watch. While somebody waits for a pod it is asked at once and soon again; this is for what changes else. */
const INTERVAL_MS = 10_000;

/** While somebody waits: doubled from the first to the last, and from the first again for whoever comes. */
const FIRST_SEEK_MS = 50;
const LAST_SEEK_MS = 800;

/** The kubelet's list of pods as a source for the index. */
export class KubeletPods implements PodSource {
  readonly #list: ListPods;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  readonly #listeners = new Set<ChangeListener<Pod>>();
  readonly #stop = new AbortController();
  #pods: Map<string, Stored<Pod>>;
  #synced = false;
  #lastContact: number | undefined;
  #failure: string | undefined;
  #alarm: Alarm | undefined;
  #asking: Promise<void> | undefined;
  #isEmptyAgain = false;
  #seekers = 0;
  #seekMs = FIRST_SEEK_MS;
  /** Somebody came after the list under way was asked for: it may be too old for them. */
  #isAskedAgain = false;

  constructor(list: ListPods, tools: { clock: Clock; random: Random; log: Log }, seed: Iterable<readonly [string, Stored<Pod>]> = []) {
    this.#list = list;
    this.#clock = tools.clock;
    this.#random = tools.random;
    this.#log = tools.log;
    this.#pods = new Map(seed);
  }

  get synced(): boolean {
    return this.#synced;
  }

  get lastContact(): number | undefined {
    return this.#lastContact;
  }

  get failure(): string | undefined {
    return this.#failure;
  }

  *items(): Generator<Pod, void, undefined> {
    for (const { item } of this.#pods.values()) yield item;
  }

  entries(): Iterable<readonly [string, Stored<Pod>]> {
    return this.#pods.entries();
  }

  onChange(listener: ChangeListener<Pod>): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  start(): void {
    void this.#ask();
  }

  /** Asks now instead of later. */
  nudge(): void {
    if (this.#failure !== undefined) void this.#ask();
  }

  seek(): () => void {
    this.#seekers += 1;
    this.#seekMs = FIRST_SEEK_MS;
    if (this.#asking === undefined) void this.#ask();
    else this.#isAskedAgain = true;
    let isSeeking = true;
    return () => {
      if (isSeeking) this.#seekers -= 1;
      isSeeking = false;
    };
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the kubelet is not asked any more'));
    this.#alarm?.cancel();
    await this.#asking;
  }

  #ask(): Promise<void> {
    this.#asking ??= this.#once().finally(() => {
      this.#asking = undefined;
      if (!this.#stop.signal.aborted) this.#plan();
    });
    return this.#asking;
  }

  #plan(): void {
    this.#alarm?.cancel();
    this.#alarm = this.#clock.after(this.#nextMs(), () => void this.#ask());
  }

  #nextMs(): number {
    const isAskedAgain = this.#isAskedAgain;
    this.#isAskedAgain = false;
    if (isAskedAgain) return 0;
    if (this.#seekers === 0) return INTERVAL_MS * (0.75 + 0.5 * this.#random.fraction());
    const soon = this.#seekMs;
    this.#seekMs = Math.min(this.#seekMs * 2, LAST_SEEK_MS);
    return soon;
  }

  async #once(): Promise<void> {
    try {
      this.#takeIn(await this.#list(this.#stop.signal));
      if (this.#failure !== undefined) this.#log.info({ event: 'kubelet.recovered' }, 'the kubelet tells about its pods again');
      this.#failure = undefined;
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      const reason = messageOf(error);
      if (reason !== this.#failure) this.#log.warn({ event: 'kubelet.failed', reason }, `the kubelet does not tell its pods: ${reason}`);
      this.#failure = reason;
    }
  }

  #takeIn(pods: readonly Pod[]): void {
    const before = this.#pods;
    // A kubelet that has just started knows no pods yet: none after some is believed the second time.
    if (pods.length === 0 && before.size > 0 && !this.#isEmptyAgain) {
      this.#isEmptyAgain = true;
      return;
    }
    this.#isEmptyAgain = false;
    this.#pods = new Map(pods.map((item) => [`${item.namespace}/${item.name}`, { uid: item.uid, resourceVersion: '', item }]));
    this.#synced = true;
    this.#lastContact = this.#clock.now();
    for (const [key, old] of before) if (this.#pods.get(key)?.uid !== old.uid) this.#tell('removed', old.item, old.item);
    for (const [key, { item }] of this.#pods) this.#compare(before.get(key)?.item, item);
  }

  #compare(before: Pod | undefined, now: Pod): void {
    if (before === undefined || before.uid !== now.uid) return this.#tell('added', now, undefined);
    if (JSON.stringify(before) !== JSON.stringify(now)) this.#tell('changed', now, before);
  }

  #tell: ChangeListener<Pod> = (kind, item, before) => {
    for (const listener of [...this.#listeners]) listener(kind, item, before);
  };
}
