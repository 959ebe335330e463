import { readdirSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import type { Registry } from 'prom-client';
import type { Clock } from '../clock.ts';
import { counterAt, gaugeAt } from './instruments.ts';

/** The process, under the names that every Prometheus client uses; nothing is measured between two scrapes. */
export function addProcessMetrics(registry: Registry, clock: Clock, descriptorLimit: number): void {
  const startedAt = clock.now() / 1000 - process.uptime();
  counterAt(registry, 'process_cpu_seconds_total', 'CPU time that the process has used, in user and system mode.', cpuSeconds);
  gaugeAt(registry, 'process_resident_memory_bytes', 'Resident memory of the process.', () => process.memoryUsage.rss());
  gaugeAt(registry, 'process_start_time_seconds', 'When the process started, in seconds since the Unix epoch.', () => startedAt);
  gaugeAt(registry, 'process_open_fds', 'Descriptors that the process has open.', openDescriptors);
  gaugeAt(registry, 'process_max_fds', 'Descriptors that the process may have open.', () => descriptorLimit);
  gaugeAt(registry, 'nodejs_heap_size_used_bytes', 'Bytes in use of the JavaScript heap.', () => process.memoryUsage().heapUsed);
  gaugeAt(registry, 'nodejs_eventloop_lag_seconds', 'How long a task waited for the event loop at this scrape.', eventLoopLag);
  const activeSeconds = (): number => performance.eventLoopUtilization().active / 1000;
  counterAt(registry, 'nodejs_eventloop_active_seconds_total', 'Time in which the event loop was busy; its rate is the utilization.', activeSeconds);
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Without the descriptor of the directory that is read for it. */
function openDescriptors(): number | undefined {
  try {
    return readdirSync('/proc/self/fd').length - 1;
  } catch {
    // No descriptor was left for the look.
    return undefined;
  }
}

function eventLoopLag(): Promise<number> {
  const since = performance.now();
  return new Promise((resolve) => setImmediate(() => resolve((performance.now() - since) / 1000)));
}
