import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stepCaMissing } from '../support/step-ca-server.ts';
import { vaultMissing } from '../support/vault-server.ts';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export function agentMissing(): string | undefined {
  return existsSync(join(ROOT, 'dist', 'main.js')) ? undefined : 'dist/ is not there: run make build';
}

export function stepCaOrAgentMissing(): string | undefined {
  return agentMissing() ?? stepCaMissing();
}

export function vaultOrAgentMissing(): string | undefined {
  return agentMissing() ?? vaultMissing({ own: true });
}
