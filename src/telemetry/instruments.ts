import { Counter, Gauge, type Registry } from 'prom-client';

type Read = () => number | undefined | Promise<number | undefined>;
type ReadMany = () => Iterable<readonly [string, number]>;

/** A figure that is read at each scrape, and not shown while it is undefined. */
export function gaugeAt(registry: Registry, name: string, help: string, read: Read): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    async collect() {
      const value = await readOne(read);
      if (value === undefined) this.remove();
      else this.set(value);
    },
  });
}

/** The same with one label, whose values are a closed set. */
export function gaugesAt(registry: Registry, name: string, help: string, label: string, read: ReadMany): void {
  new Gauge({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect() {
      this.reset();
      for (const [value, figure] of readMany(read)) this.set({ [label]: value }, figure);
    },
  });
}

/** A count that somebody else keeps. */
export function counterAt(registry: Registry, name: string, help: string, read: Read): void {
  new Counter({
    name,
    help,
    registers: [registry],
    async collect() {
      const value = await readOne(read);
      this.remove();
      if (value !== undefined) this.inc(value);
    },
  });
}

/** Counts with one label that somebody else keeps. */
export function countersAt(registry: Registry, name: string, help: string, label: string, read: ReadMany): void {
  new Counter({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect() {
      this.reset();
      for (const [value, count] of readMany(read)) this.inc({ [label]: value }, count);
    },
  });
}

/** One figure that cannot be read, because its room is just being left, must not hide all the others. */
async function readOne(read: Read): Promise<number | undefined> {
  try {
    return await read();
  } catch {
    return undefined;
  }
}

function readMany(read: ReadMany): readonly (readonly [string, number])[] {
  try {
    return [...read()];
  } catch {
    return [];
  }
}
