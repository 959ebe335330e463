import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { vaultMissing } from '../support/vault-server.ts';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export function agentMissing(): string | undefined {
  return existsSync(join(ROOT, 'dist', 'main.js')) ? undefined : 'dist/ is not there: run make build';
}

export function vaultOrAgentMissing(): string | undefined {
  return agentMissing() ?? vaultMissing({ own: true });
}
