type Verdict = 'passed' | 'failed' | 'skipped';

interface Line {
  readonly step: string;
  readonly sentence: string;
  readonly verdict: Verdict;
  /** What was measured; or why it failed or was skipped. */
  readonly says: string;
}

const LONGEST = 1_000;

/** What was shown and what was not, line by line, each with its figures. */
export class Report {
  readonly #lines: Line[] = [];
  #step = '';

  begin(step: string): void {
    this.#step = step;
    console.log(`\n── ${step}`);
  }

  /** Runs a check, which resolves with what it has measured. A failure is recorded and does not stop what follows. */
  async check(sentence: string, run: () => Promise<string> | string): Promise<boolean> {
    try {
      this.#add(sentence, 'passed', await run());
      return true;
    } catch (error) {
      this.#add(sentence, 'failed', reasonOf(error));
      return false;
    }
  }

  skip(sentence: string, reason: string): void {
    this.#add(sentence, 'skipped', reason);
  }

  note(text: string): void {
    console.log(`     ${new Date().toISOString().slice(11, 19)} ${text}`);
  }

  get failed(): number {
    return this.#count('failed');
  }

  print(): void {
    let step = '';
    for (const { step: of, verdict, sentence, says } of this.#lines) {
      if (of !== step) console.log(`\n${of}`);
      step = of;
      console.log(`  ${verdict.padEnd(7)}  ${sentence}${says === '' ? '' : `\n           ${says.replaceAll('\n', '\n           ')}`}`);
    }
    console.log(`\n${this.#count('passed')} passed, ${this.#count('failed')} failed, ${this.#count('skipped')} skipped`);
  }

  #add(sentence: string, verdict: Verdict, says: string): void {
    this.#lines.push({ step: this.#step, sentence, verdict, says: says.slice(0, LONGEST) });
    console.log(`   ${verdict === 'passed' ? 'ok  ' : verdict.toUpperCase()} ${sentence}${says === '' ? '' : `: ${says}`}`);
  }

  #count(verdict: Verdict): number {
    return this.#lines.filter((line) => line.verdict === verdict).length;
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message} (${reasonOf(error.cause)})`;
}
