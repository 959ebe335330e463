import { LOCAL_OPTIONS, type Options } from './arguments.ts';

/** Where the operator's socket is unless the command line or the environment names another place. */
export const DEFAULT_ADMIN_SOCKET = '/run/signet/private/admin.sock';

/** Of every command that asks the agent on the operator's socket. */
export const ADMIN_OPTIONS: Options = {
  admin: {
    type: 'string',
    value: 'PATH',
    help: `the operator's socket; default: SIGNET_ADMIN_SOCKET, else ${DEFAULT_ADMIN_SOCKET}`,
  },
  timeout: { type: 'string', value: 'DURATION', help: 'give up after this long; default 30s' },
  ...LOCAL_OPTIONS,
};
