export type Verdict = 'passed' | 'failed' | 'skipped';

interface Line {
  readonly step: string;
  readonly sentence: string;
  readonly verdict: Verdict;
  /** Why it failed or was skipped; empty where it passed. */
  readonly reason: string;
  readonly seconds: number;
}

/** What was shown and what was not, line by line. */
export class Report {
  readonly #lines: Line[] = [];
  #step = '';

  begin(step: string): void {
    this.#step = step;
    console.log(`\n── ${step}`);
  }

  /** Runs a check; a failure is recorded and does not stop what follows. Resolves with whether it passed. */
  async check(sentence: string, run: () => Promise<void> | void): Promise<boolean> {
    const started = performance.now();
    try {
      await run();
      this.#add(sentence, 'passed', '', started);
      return true;
    } catch (error) {
      this.#add(sentence, 'failed', reasonOf(error), started);
      return false;
    }
  }

  skip(sentence: string, reason: string): void {
    this.#add(sentence, 'skipped', reason, performance.now());
  }

  /** Something measured, or seen, that is neither right nor wrong. */
  note(text: string): void {
    console.log(text.replaceAll(/^/gm, '     '));
  }

  get failed(): number {
    return this.#count('failed');
  }

  /** How many lines there are; what has failed since such a moment is `failedSince`. */
  get length(): number {
    return this.#lines.length;
  }

  failedSince(length: number): boolean {
    return this.#lines.slice(length).some((line) => line.verdict === 'failed');
  }

  print(): void {
    const width = Math.max(...this.#lines.map((line) => line.sentence.length), 0);
    let step = '';
    for (const line of this.#lines) {
      if (line.step !== step) console.log(`\n${line.step}`);
      step = line.step;
      console.log(`  ${line.verdict.padEnd(7)}  ${line.sentence.padEnd(width)}  ${lastColumn(line)}`);
    }
    console.log(`\n${this.#count('passed')} passed, ${this.#count('failed')} failed, ${this.#count('skipped')} skipped`);
  }

  #add(sentence: string, verdict: Verdict, reason: string, started: number): void {
    this.#lines.push({ step: this.#step, sentence, verdict, reason, seconds: (performance.now() - started) / 1000 });
    console.log(`   ${verdict === 'passed' ? 'ok  ' : verdict.toUpperCase()} ${sentence}${reason === '' ? '' : `: ${reason}`}`);
  }

  #count(verdict: Verdict): number {
    return this.#lines.filter((line) => line.verdict === verdict).length;
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message} (${reasonOf(error.cause)})`;
}

function lastColumn({ verdict, seconds, reason }: Line): string {
  return verdict === 'passed' ? `${seconds.toFixed(1)} s` : firstLine(reason);
}

function firstLine(text: string): string {
  return (text.split('\n')[0] ?? '').slice(0, 200);
}
