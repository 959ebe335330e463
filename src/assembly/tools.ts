import type { Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { Log } from '../log.ts';
import type { Random } from '../random.ts';

/** What every assembled room is given. */
export interface RoomTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly events: EventBus;
}
