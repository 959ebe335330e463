import type { Step } from '../step.ts'; export const rotationEmbedded: Step = { title: 'rotation-embedded', missing: () => 'todo', run: async () => undefined };
