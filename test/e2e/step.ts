import type { Report } from './report.ts';
import type { World } from './world.ts';

/** Part of the scenario. Steps run in order, on what the steps before have left running. */
export interface Step {
  readonly title: string;
  run(world: World, report: Report): Promise<void>;
}
