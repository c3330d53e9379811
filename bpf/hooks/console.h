/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoint mode: kernel log lines as they are written: the tracepoint console. */
#ifndef OOMTRACE_HOOKS_CONSOLE_H
#define OOMTRACE_HOOKS_CONSOLE_H

#include "incident.h"
#include "victim.h"

enum log_line {
	LOG_OTHER,
	LOG_INVOKED, /* "COMM invoked oom-killer: gfp_mask=..." */
	LOG_SUMMARY, /* "oom-kill:constraint=..." */
};

inline_always enum log_line classify(const char *text)
{
	char start[COMM_LEN + 16] = {};
	const char summary[] = "oom-kill:", invoked[] = " invoked oom-k";
	int i, j;

	bpf_probe_read_kernel_str(start, sizeof(start), text);
	for (i = 0; i < (int)sizeof(summary) - 1; i++)
		if (start[i] != summary[i])
			break;
	if (i == sizeof(summary) - 1)
		return LOG_SUMMARY;
	for (i = 0; i < COMM_LEN; i++) {
		for (j = 0; j < (int)sizeof(invoked) - 1; j++)
			if (start[i + j] != invoked[j])
				break;
		if (j == sizeof(invoked) - 1)
			return LOG_INVOKED;
	}
	return LOG_OTHER;
}

SEC("raw_tp/console")
int on_console(struct bpf_raw_tracepoint_args *ctx)
{
	const char *text = (const char *)ctx->args[0];
	enum log_line line = classify(text);
	struct incident_state *state = current_incident();
	struct log_event *log;
	u32 zero = 0;
	u64 len;
	bool sent;

	if (state && state->killed_again && line == LOG_OTHER) {
		send_killed_again(state, state->killed_again);
		return 0;
	}
	if (!state) {
		if (line == LOG_OTHER)
			return 0;
		state = open_incident();
	} else if (state->victim_pid) {
		if (line != LOG_OTHER)
			state = open_incident();
	} else if (state->in_summary) {
		line = LOG_OTHER; /* part of the summary: the names in it may look like any line */
	} else if (line == LOG_INVOKED) {
		state = open_incident(); /* the last incident had no victim */
	}
	if (!state)
		return 0;
	log = map_lookup(log_events, &zero);
	if (!log)
		return 0;
	if (line == LOG_SUMMARY)
		state->in_summary = 1; /* printed in parts (pr_cont), all of them before the mark of the victim */
	/* Of the other lines only the one right after a mark matters: "MESSAGE: Killed process". */
	if (line == LOG_OTHER && (state->victim_pid ? state->victim_logged : !state->in_summary))
		return 0;
	len = clamp_to(ctx->args[1], LOG_LEN); /* not terminated by a NUL */
	if (bpf_probe_read_kernel(log->text, len, text))
		return 0;
	log->len = len;
	stamp(&log->event, EVENT_LOG, state->incident_ns);
	sent = !(state->victim_pid && state->victim_brief) &&
	       try_to_send(log, __builtin_offsetof(struct log_event, text) + clamp_to(len, LOG_LEN));
	if (!state->victim_pid) {
		state->lost_before_victim |= !sent;
		return 0;
	}
	if (!sent)
		send_log_brief(state, log);
	state->victim_logged = 1;
	return 0;
}

#endif
