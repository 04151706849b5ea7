/* Contract section 1: names of queues. */
#include "conf.h"

static struct mq_attr small = {.mq_maxmsg = 1, .mq_msgsize = 1};

/* open without O_CREAT, open with it, and unlink all answer the same. */
static void all_fail(const char *name, int err)
{
	FAILS(mq_open(name, O_RDWR), err);
	FAILS(mq_open(name, O_RDWR | O_CREAT, 0600, &small), err);
	FAILS(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &small), err);
	FAILS(mq_unlink(name), err);
}

CASE("1", name_without_leading_slash_is_EINVAL)
{
	all_fail("", EINVAL);
	all_fail("x", EINVAL);
	all_fail("a/b", EINVAL);
	all_fail(".", EINVAL);
	all_fail(" /x", EINVAL);
}

CASE("1", name_without_slash_is_EINVAL_before_bad_attr_pointer)
{
	FAILS(mq_open("x", O_RDWR | O_CREAT, 0600, nowhere()), EINVAL);
	FAILS(mq_open("", O_RDWR | O_CREAT, 0600, nowhere()), EINVAL);
}

CASE("1", name_without_slash_is_EINVAL_even_without_free_descriptors)
{
	fill_descriptors();
	FAILS(mq_open("x", O_RDWR), EINVAL);
}

CASE("1", name_of_slash_alone_is_ENOENT)
{
	all_fail("/", ENOENT);
}

CASE("1", name_of_slash_alone_is_ENOENT_even_without_free_descriptors)
{
	fill_descriptors();
	FAILS(mq_open("/", O_RDWR), ENOENT);
	FAILS(mq_open("/", O_RDWR | O_CREAT, 0600, &small), ENOENT);
}

CASE("1", dot_names_are_EACCES)
{
	all_fail("/.", EACCES);
	all_fail("/..", EACCES);
}

CASE("1", further_slashes_are_EACCES)
{
	all_fail("/a/b", EACCES);
	all_fail("/a/", EACCES);
	all_fail("//a", EACCES);
	all_fail("//", EACCES);
	all_fail("/./a", EACCES);
}

CASE("1", name_of_255_bytes_works)
{
	char n[257] = "/";
	memset(n + 1, 'n', 255);
	snprintf(n + 1, 20, "conf-%d", (int)conf_pid);
	n[strlen(n)] = 'n';
	EQ(strlen(n), 256);
	mqd_t q = make(n, O_RDWR, 1, 8);
	put(q, "x", 0);
	mqd_t r = OK(mq_open(n, O_RDONLY));
	take(r, "x", 0);
	EQ(mq_unlink(n), 0);
	FAILS(mq_open(n, O_RDWR), ENOENT);
}

static void long_name(int len, int slash_at, int err)
{
	char *n = malloc(len + 2);
	n[0] = '/';
	memset(n + 1, 'n', len);
	n[len + 1] = 0;
	if (slash_at)
		n[slash_at] = '/';
	all_fail(n, err);
}

CASE("1", name_of_256_to_4094_bytes_is_ENAMETOOLONG)
{
	long_name(256, 0, ENAMETOOLONG);
	long_name(1000, 0, ENAMETOOLONG);
	long_name(4094, 0, ENAMETOOLONG);
}

CASE("1", long_name_with_further_slash_is_EACCES)
{
	long_name(256, 100, EACCES);
	long_name(300, 300, EACCES);
	long_name(4094, 300, EACCES);
}

CASE("1", name_of_path_max_is_ENAMETOOLONG_even_with_slashes)
{
	long_name(4096, 0, ENAMETOOLONG);
	long_name(10000, 0, ENAMETOOLONG);
	long_name(4096, 1, ENAMETOOLONG);
	long_name(4096, 200, ENAMETOOLONG);
	long_name(10000, 200, ENAMETOOLONG);
}

CASE("1", any_other_byte_may_stand_in_a_name)
{
	static const char *forms[] = {"/...%d", "/.x%d", "/ %d ", "/\n%d", "/\xff%d", "/%%s%d",
				      "/\x01%d\x7f", "/-%d", "/*?[%d", "/\\%d", "/~%d", "/..%d"};
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		char n[64];
		snprintf(n, sizeof n, forms[i], (int)conf_pid);
		mqd_t q = make(n, O_RDWR, 1, 8);
		FAILS(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, &small), EEXIST);
		put(q, "x", 0);
		mqd_t r = OK(mq_open(n, O_RDONLY));
		take(r, "x", 0);
		EQ(mq_unlink(n), 0);
		EQ(mq_close(q), 0);
		EQ(mq_close(r), 0);
	}
}

CASE("1", names_differ_by_case_and_by_every_byte)
{
	char a[64], b[64];
	snprintf(a, sizeof a, "%s", qname("case"));
	snprintf(b, sizeof b, "%s", qname("CASE"));
	mqd_t q = make(a, O_RDWR, 1, 8);
	FAILS(mq_open(b, O_RDWR), ENOENT);
	mqd_t r = make(b, O_RDWR, 1, 8);
	put(q, "x", 0);
	EQ(curmsgs(r), 0);
}

CASE("1", name_that_ends_in_unmapped_memory_is_EFAULT)
{
	char *n = edge(1);
	*n = '/';
	all_fail(n, EFAULT);
	n = edge(4);
	memcpy(n, "/abc", 4);
	all_fail(n, EFAULT);
}

SHIM_CASE("1 (a crash in the C library natively)", null_or_unmapped_name_is_EFAULT)
{
	const char *volatile null = NULL;
	all_fail(null, EFAULT);
	all_fail(nowhere(), EFAULT);
}
