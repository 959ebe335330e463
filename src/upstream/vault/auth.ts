import { messageOf } from '../../errors.ts';
import type { JsonObject } from '../../kubernetes/json.ts';
import { readSmallFile } from '../wire/small-file.ts';
import { pathOf } from './path.ts';
import { hasFault, isAway, VaultError } from './vault-error.ts';
import type { VaultAuth } from './vault-options.ts';

/** A token and how long it lives. */
export interface Lease {
  readonly token: string;
  /** From the answer on, in milliseconds; Infinity when it has no end, or none that we may know. */
  readonly lifeMs: number;
  readonly isRenewable: boolean;
}

/** Where tokens come from. */
export interface TokenSource {
  /** @throws VaultError, or the reason of the signal. */
  login(signal: AbortSignal): Promise<Lease>;
  /** The same token for longer. Its rejections are those of `login`. */
  renew(token: string, signal: AbortSignal): Promise<Lease>;
}

/** One request to Vault, whose answer is the member `auth`; with `token` when there is one already. */
export type AskAuth = (path: string, asked: { token?: string; body: JsonObject; signal: AbortSignal }) => Promise<JsonObject>;

const RENEW_SELF = 'auth/token/renew-self';

/** Logs in by one of the methods that Vault and OpenBao have in common. */
export class VaultLogin implements TokenSource {
  readonly #auth: VaultAuth;
  readonly #ask: AskAuth;

  constructor(auth: VaultAuth, ask: AskAuth) {
    this.#auth = auth;
    this.#ask = ask;
  }

  async login(signal: AbortSignal): Promise<Lease> {
    const auth = this.#auth;
    if (auth.method === 'token') return this.#fromFile(auth.tokenFile, signal);
    const body = await bodyOf(auth);
    try {
      return leaseOf(await this.#ask(`auth/${pathOf(auth.mount, 'login')}`, { body, signal }));
    } catch (error) {
      throw isAway(error) || !(error instanceof VaultError) ? error : refusedLogin(auth, error);
    }
  }

  async renew(token: string, signal: AbortSignal): Promise<Lease> {
    // The file may hold another token by now, which its owner has made instead.
    if (this.#auth.method === 'token') return this.login(signal);
    return leaseOf(await this.#ask(RENEW_SELF, { token, body: {}, signal }));
  }

  /** Renewing tells whether the token is good and how long it lives. A token that may not do that is simply used. */
  async #fromFile(path: string, signal: AbortSignal): Promise<Lease> {
    const token = await fileOf('token', path);
    try {
      return leaseOf(await this.#ask(RENEW_SELF, { token, body: {}, signal }));
    } catch (error) {
      if (isInvalidToken(error)) {
        const why = `it was revoked or has ended (${wordsOf(error)})`;
        throw new VaultError('login', `Vault does not take the token in ${path}: ${why}. What to do: put a new one there`, { cause: error });
      }
      if (!hasFault(error, 'forbidden', 'bad_request')) throw error;
      return { token, lifeMs: Infinity, isRenewable: false };
    }
  }
}

/** True for a token that Vault does not know (any more), in contrast to one that may not do something. */
export function isInvalidToken(error: unknown): error is VaultError {
  return hasFault(error, 'forbidden') && error.words.some((words) => /\binvalid token\b/i.test(words));
}

async function bodyOf(auth: Exclude<VaultAuth, { method: 'token' }>): Promise<JsonObject> {
  switch (auth.method) {
    case 'kubernetes':
    case 'jwt':
      return { role: auth.role, jwt: await fileOf('token', auth.jwtFile) };
    case 'approle': {
      const roleId = await fileOf('role ID', auth.roleIdFile);
      return { role_id: roleId, ...(auth.secretIdFile ? { secret_id: await fileOf('secret ID', auth.secretIdFile) } : {}) };
    }
    case 'cert':
      return auth.role ? { name: auth.role } : {};
  }
}

async function fileOf(what: string, path: string): Promise<string> {
  try {
    return await readSmallFile(what, path);
  } catch (error) {
    throw new VaultError('login', messageOf(error), { cause: error });
  }
}

function leaseOf(auth: JsonObject): Lease {
  const { client_token: token, lease_duration: seconds, renewable } = auth;
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) throw new VaultError('malformed', 'the answer of Vault to a login holds no token');
  const hasEnd = typeof seconds === 'number' && seconds > 0;
  return { token, lifeMs: hasEnd ? seconds * 1000 : Infinity, isRenewable: hasEnd && renewable === true };
}

function refusedLogin(auth: Exclude<VaultAuth, { method: 'token' }>, error: VaultError): VaultError {
  const { status, words, retryAfterMs } = error;
  const message = `Vault refuses the login by ${auth.method} at auth/${auth.mount} (${wordsOf(error)}). ${loginRemedy(auth, status)}`;
  return new VaultError('login', message, { status, words, retryAfterMs, cause: error });
}

/** Vault answers 403 in both cases of Kubernetes, and 400 where the other methods are refused. */
function loginRemedy(auth: Exclude<VaultAuth, { method: 'token' }>, status: number | undefined): string {
  if (auth.method === 'kubernetes' && status === 403) {
    const role = `the role ${auth.role} does not take this service account, namespace or audience`;
    return `Either ${role}, or Vault cannot reach the API server that reviews the token, which may pass`;
  }
  if (status === 404) return 'What to do: enable the auth method there, or set authority.vault.auth.mount to where it is';
  const role = 'role' in auth && auth.role ? `the role ${auth.role}` : 'the role';
  return `What to do: compare ${role} with ${SUBJECT[auth.method]}`;
}

const SUBJECT = {
  kubernetes: 'the service account, its namespace and the audience of its token',
  jwt: 'the issuer, audience and subject of the token',
  approle: 'the role ID and the secret ID, which may have ended',
  cert: 'the client certificate and its CA',
} as const;

function wordsOf({ status, words }: VaultError): string {
  return [status, ...words].filter((part) => part !== undefined && part !== '').join(': ');
}
