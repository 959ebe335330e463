import { PassThrough, Readable, Writable } from 'node:stream';
import { runCommand, type Io, type OtherCommands } from '../../src/cli/commands.ts';

export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Settings {
  readonly env?: Record<string, string>;
  readonly stdin?: string;
  readonly isTty?: boolean;
  readonly signal?: AbortSignal;
  readonly others?: OtherCommands;
  /** Called with each piece of standard output. */
  readonly onOutput?: (text: string) => void;
  readonly stdout?: Writable;
}

/** Runs one command in this process and returns what it wrote. */
export async function run(words: readonly string[], settings: Settings = {}): Promise<Result> {
  const [name = '', ...argv] = words;
  const [stdout, stderr] = [new Collector(settings.onOutput), new Collector()];
  const io: Io = {
    stdout: settings.stdout ?? stdout,
    stderr,
    stdin: settings.stdin === undefined ? new PassThrough() : Readable.from([settings.stdin]),
    env: settings.env ?? {},
    signal: settings.signal ?? new AbortController().signal,
    isTty: settings.isTty ?? false,
    now: () => Date.now(),
  };
  const code = await runCommand(name, argv, io, settings.others);
  return { code, stdout: stdout.text, stderr: stderr.text };
}

class Collector extends Writable {
  text = '';
  readonly #onText: ((text: string) => void) | undefined;

  constructor(onText?: (text: string) => void) {
    super({ decodeStrings: true });
    this.#onText = onText;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.text += chunk.toString('utf8');
    this.#onText?.(chunk.toString('utf8'));
    done();
  }
}
