export { hasFault, isAway, isAwayFault, UpstreamError as VaultError, type UpstreamFault as VaultFault } from '../wire/upstream-error.ts';
