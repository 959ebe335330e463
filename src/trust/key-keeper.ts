import type { Alarm, Clock } from '../clock.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { HeldKey } from './held-keys.ts';
import { formatKeys, type KeyMemory } from './key-memory.ts';

/** Changes are kept for a restart after this time: many of them are one write. */
const REMEMBER_MS = 2_000;

/** Writes other nodes' keys down for a restart, seldom and only when they have changed. */
export class KeyKeeper {
  readonly #memory: KeyMemory | undefined;
  readonly #current: () => readonly HeldKey[];
  readonly #clock: Clock;
  readonly #log: Log | undefined;
  #alarm: Alarm | undefined;
  #written: string | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(memory: KeyMemory | undefined, current: () => readonly HeldKey[], clock: Clock, log?: Log) {
    this.#memory = memory;
    this.#current = current;
    this.#clock = clock;
    this.#log = log;
  }

  /** What is there now may differ from what was written. */
  changed(): void {
    if (this.#memory !== undefined) this.#alarm ??= this.#clock.after(REMEMBER_MS, () => this.#write());
  }

  /** Resolves when the last state is written. */
  async close(): Promise<void> {
    if (this.#alarm !== undefined) this.#write();
    await this.#writing;
  }

  #write(): void {
    this.#alarm?.cancel();
    this.#alarm = undefined;
    const text = formatKeys(this.#current());
    if (text === this.#written) return;
    this.#written = text;
    this.#writing = this.#writing.then(() => this.#memory?.write(text)).catch((error: unknown) => {
      this.#written = undefined;
      const fields = { event: 'jwt_keys.not_remembered', err: messageOf(error) };
      this.#log?.warn(fields, 'the JWT keys of other nodes cannot be kept for a restart');
    });
  }
}
