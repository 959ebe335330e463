import type { Step } from '../step.ts'; export const rotationFiles: Step = { title: 'rotation-files', missing: () => 'todo', run: async () => undefined };
