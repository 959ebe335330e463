import type { Step } from '../step.ts'; export const faults: Step = { title: 'faults', missing: () => 'todo', run: async () => undefined };
