import { createConnection } from 'node:net';
import type { Alarm, Clock } from '../clock.ts';

/** How often the successor's socket is tried, and how often in a row it may fail: an agent that restarts needs a moment. */
const INTERVAL_MS = 1_000;
const MOST_FAILURES = 5;

/**
 * Watches the socket that another agent has taken over, by connecting to it. Calls `onGone` once when nobody has answered for some
 * five seconds. The function returned stops it.
 */
export function watchSuccessor(socketPath: string, clock: Clock, onGone: () => void): () => void {
  let failures = 0;
  let isOver = false;
  let alarm: Alarm | undefined;
  const answered = (isThere: boolean): void => {
    if (isOver) return;
    failures = isThere ? 0 : failures + 1;
    if (failures < MOST_FAILURES) return plan();
    isOver = true;
    onGone();
  };
  const look = (): void => {
    const socket = createConnection(socketPath);
    socket.once('connect', () => (socket.destroy(), answered(true)));
    socket.once('error', () => answered(false));
  };
  const plan = (): void => {
    alarm = clock.after(INTERVAL_MS, look);
  };
  plan();
  return () => {
    isOver = true;
    alarm?.cancel();
  };
}
