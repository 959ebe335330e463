import type { Report } from './report.ts';

/** Part of the scenario, which needs nothing of the others. */
export interface Step {
  readonly title: string;
  /** Why it cannot run here, for its line; undefined when it can. */
  missing(): string | undefined;
  /** `started`: what has to end with the step, in the reverse order. */
  run(report: Report, started: AsyncDisposableStack): Promise<void>;
}
