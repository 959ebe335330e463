import type { Step } from '../step.ts'; export const clients: Step = { title: 'clients', missing: () => 'todo', run: async () => undefined };
