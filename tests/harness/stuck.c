/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stuck: an unprivileged process that holds its mmap_lock for ever, and has moved its command line.
 *
 *	stuck FOLDER [CGROUP]
 *
 * A FUSE file system at FOLDER never answers READ.  A thread of the process reads a page of a file on it, which stays
 * locked; the main thread maps the file, reopened with FOPEN_DIRECT_IO: invalidate_inode_pages2() waits for that
 * page with mmap_lock held for writing.  This needs no privileges except those of fusermount3, a setuid program, for
 * any user; this program must be started by root to mount by itself, in its own mount namespace.
 *
 * With CGROUP the process enters it, allocates 12 MiB, and is the first victim.  It prints its pid, and exits
 * at the end of its stdin.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/prctl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOBODY 65534
#define SIZE (1 << 20)

static int folder, cached, direct;
static volatile int *is_locked; /* shared with the server */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

static void answer(int fd, const struct fuse_in_header *in, int error, const void *body, size_t len)
{
	struct fuse_out_header out = { .len = sizeof(out) + len, .error = error, .unique = in->unique };
	char reply[4096];

	memcpy(reply, &out, sizeof(out));
	memcpy(reply + sizeof(out), body, len);
	if (write(fd, reply, out.len) < 0)
		perror("answer");
}

/* Every name is a file of SIZE bytes. */
static void serve(int fd)
{
	static char request[SIZE];
	int opened = 0;

	for (;;) {
		const struct fuse_in_header *in = (const void *)request;
		struct fuse_init_out init = { .major = 7, .minor = 31, .max_write = 4096 };
		struct fuse_attr attr = { .nlink = 1, .size = SIZE, .blksize = 4096, .uid = NOBODY, .gid = NOBODY };
		struct fuse_attr_out attributes = { .attr_valid = 1000 };
		struct fuse_entry_out entry = { .nodeid = 2, .entry_valid = 1000, .attr_valid = 1000 };
		struct fuse_open_out handle = { .fh = 1, .open_flags = opened ? FOPEN_DIRECT_IO : 0 };

		if (read(fd, request, sizeof(request)) < 0) {
			if (errno == EINTR)
				continue;
			exit(0); /* unmounted */
		}
		attr.ino = in->opcode == FUSE_LOOKUP ? 2 : in->nodeid;
		attr.mode = attr.ino == 1 ? S_IFDIR | 0755 : S_IFREG | 0644;
		attributes.attr = entry.attr = attr;
		switch (in->opcode) {
		case FUSE_INIT:
			answer(fd, in, 0, &init, sizeof(init));
			break;
		case FUSE_LOOKUP:
			answer(fd, in, 0, &entry, sizeof(entry));
			break;
		case FUSE_GETATTR:
			answer(fd, in, 0, &attributes, sizeof(attributes));
			break;
		case FUSE_OPEN:
			opened++;
			answer(fd, in, 0, &handle, sizeof(handle));
			break;
		case FUSE_FLUSH:
		case FUSE_RELEASE:
			answer(fd, in, 0, "", 0);
			break;
		case FUSE_READ:
			*is_locked = 1; /* the kernel has locked the page that it asks for */
			break;
		case FUSE_INTERRUPT:
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
			break;
		default:
			answer(fd, in, -ENOSYS, "", 0);
		}
	}
}

/* Any process may move its command line (CONFIG_CHECKPOINT_RESTORE). */
static void move_command_line(void)
{
	char stat[4096], *field;
	unsigned long fields[64] = { 0 };
	struct prctl_mm_map map = { 0 };
	FILE *file = fopen("/proc/self/stat", "r");
	int n = 3;

	if (!file || !fgets(stat, sizeof(stat), file))
		die("/proc/self/stat");
	fclose(file);
	for (field = strtok(strrchr(stat, ')') + 2, " "); field && n < 64; field = strtok(NULL, " "))
		fields[n++] = strtoul(field, NULL, 10);
	map.start_code = fields[26];
	map.end_code = fields[27];
	map.start_stack = fields[28];
	map.start_data = fields[45];
	map.end_data = fields[46];
	map.start_brk = fields[47];
	map.brk = (unsigned long)sbrk(0);
	map.arg_start = fields[48] + 1;
	map.arg_end = fields[49];
	map.env_start = fields[50];
	map.env_end = fields[51];
	map.exe_fd = -1;
	if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0))
		perror("PR_SET_MM_MAP");
}

static void *lock_page(void *unused)
{
	char byte;

	return pread(cached, &byte, 1, 0) < 0 ? NULL : unused;
}

static void be_stuck(int takes_memory)
{
	pthread_t thread;

	prctl(PR_SET_NAME, "stuck");
	if (takes_memory && mmap(NULL, 12 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1,
				 0) == MAP_FAILED)
		die("12 MiB");
	put("/proc/self/oom_score_adj", "1000");
	move_command_line();
	cached = openat(folder, "file", O_RDONLY);
	direct = openat(folder, "file", O_RDONLY);
	if (cached < 0 || direct < 0)
		die("file");
	pthread_create(&thread, NULL, lock_page, NULL);
	while (!*is_locked)
		usleep(1000);
	/* In the main thread, which keeps its memory until it exits, which it never does. */
	mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, direct, 0);
}

int main(int argc, char **argv)
{
	char options[128], path[4096];
	int fd = open("/dev/fuse", O_RDWR);
	pid_t server, process;

	if (fd < 0)
		die("/dev/fuse");
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("a mount namespace");
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%d,group_id=%d", fd, NOBODY, NOBODY);
	if (mount("stuck", argv[1], "fuse", MS_NOSUID | MS_NODEV, options))
		die(argv[1]);
	is_locked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (is_locked == MAP_FAILED)
		die("shared memory");
	folder = open(argv[1], O_PATH); /* the directory is not accessible to nobody */
	if (argc > 2) {
		snprintf(path, sizeof(path), "%s/cgroup.procs", argv[2]);
		put(path, "0");
	}
	if (setgid(NOBODY) || setuid(NOBODY))
		die("setuid");
	prctl(PR_SET_DUMPABLE, 1);
	server = fork();
	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(fd);
	}
	process = fork();
	if (!process) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fd);
		be_stuck(argc > 2);
	}
	close(fd);
	printf("%d\n", process);
	fclose(stdout);
	if (read(0, path, 1) < 0)
		perror("stdin");
	kill(server, SIGKILL);
	kill(process, SIGKILL);
	return 0;
}
