import type { VaultAuthConfig, VaultConfig } from '../config/config.ts';
import { SignetError } from '../errors.ts';
import { VaultClient } from '../upstream/vault/client.ts';
import type { VaultAuth } from '../upstream/vault/vault-options.ts';
import type { RoomTools } from './tools.ts';

/** The connection to Vault that the configuration names; one for all that is asked there. It asks nothing before it is asked. */
export function openVault({ address, namespace, caFile, serverName, auth }: VaultConfig, tools: RoomTools): VaultClient {
  const options = {
    address: new URL(address),
    auth: authOf(auth),
    ...(namespace === '' ? {} : { namespace }),
    ...(caFile === undefined ? {} : { caFile }),
    ...(serverName === undefined ? {} : { serverName }),
  };
  return new VaultClient(options, tools);
}

function authOf({ method, mount, role, jwtFile, roleIdFile, secretIdFile, certificate, key, tokenFile }: VaultAuthConfig): VaultAuth {
  if (method === 'token') return { method, tokenFile: given('tokenFile', tokenFile) };
  if (method === 'approle') {
    return { method, mount, roleIdFile: given('roleIdFile', roleIdFile), ...(secretIdFile === undefined ? {} : { secretIdFile }) };
  }
  if (method === 'cert') {
    return { method, mount, certificate: given('certificate', certificate), key: given('key', key), ...(role === undefined ? {} : { role }) };
  }
  return { method, mount, role: given('role', role), jwtFile };
}

/** The configuration has been judged already. */
function given(name: string, value: string | undefined): string {
  if (value === undefined) throw new SignetError('invalid_config', `authority.vault.auth.${name} is not set`);
  return value;
}
