import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { spireMissing } from '../support/spire-server.ts';
import { stepCaMissing } from '../support/step-ca-server.ts';
import { vaultMissing } from '../support/vault-server.ts';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export function agentMissing(): string | undefined {
  return existsSync(join(ROOT, 'dist', 'main.js')) ? undefined : 'dist/ is not there: run make build';
}

export function stepCaOrAgentMissing(): string | undefined {
  return agentMissing() ?? stepCaMissing();
}

export function spireOrAgentMissing(): string | undefined {
  return agentMissing() ?? spireMissing();
}

export function vaultOrAgentMissing(): string | undefined {
  return agentMissing() ?? vaultMissing({ own: true });
}
