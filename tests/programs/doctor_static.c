/* cc-flags: -static
 *
 * A statically linked program, which says that it is there, and stays until standard input ends.
 */
#include <stdio.h>

int main(void)
{
	puts("here");
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
