import type { Entry } from '../spiffe/entry.ts';
import type { Feed } from './feeds.ts';
import type { StateStream } from './stream.ts';

/** The feed that a stream reads, and the one that takes its place as soon as it has something to say. */
export class FeedSwitch {
  readonly #stream: StateStream;
  readonly #open: (entries: readonly Entry[], onChange: () => void) => Feed;
  #current: Feed | undefined;
  #next: Feed | undefined;
  #isClosed = false;

  constructor(stream: StateStream, open: (entries: readonly Entry[], onChange: () => void) => Feed) {
    this.#stream = stream;
    this.#open = open;
  }

  turnTo(entries: readonly Entry[]): void {
    if (this.#isClosed) return;
    this.#next?.close();
    this.#next = this.#open(entries, () => this.#read());
    this.#read();
  }

  close(): void {
    this.#isClosed = true;
    this.#current?.close();
    this.#next?.close();
    this.#current = undefined;
    this.#next = undefined;
  }

  #read(): void {
    const state = this.#next?.latest();
    if (state !== undefined) {
      this.#current?.close();
      this.#current = this.#next;
      this.#next = undefined;
    }
    const newest = state ?? this.#current?.latest();
    if (newest !== undefined) this.#stream.offer(newest);
  }
}
