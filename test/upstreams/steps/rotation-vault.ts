import type { Step } from '../step.ts'; export const rotationVault: Step = { title: 'rotation-vault', missing: () => 'todo', run: async () => undefined };
