/* Asks as a program in a small image does: musl's own resolver, linked statically.
 *
 *   musl addresses 0|4|6 NAME   getaddrinfo of both families or one
 *   musl name ADDRESS           getnameinfo
 *   musl record TYPE NAME       res_query, for types that the two do not know
 */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(int code)
{
	const char *name = code == EAI_NONAME ? "EAI_NONAME" :
		code == EAI_AGAIN ? "EAI_AGAIN" : gai_strerror(code);
	printf("%s\n", name);
	return 1;
}

static int addresses(int family, const char *name)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all, *one;
	hints.ai_family = family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC;
	int code = getaddrinfo(name, "80", &hints, &all);
	if (code)
		return failed(code);
	for (one = all; one; one = one->ai_next) {
		char text[64];
		getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
		printf("%s\n", text);
	}
	return 0;
}

static int name_of(const char *address)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST }, *one;
	char text[256];
	int code = getaddrinfo(address, 0, &hints, &one);
	if (!code)
		code = getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0,
			NI_NAMEREQD);
	if (code)
		return failed(code);
	printf("%s\n", text);
	return 0;
}

static int records(const char *type, const char *name)
{
	int number = !strcmp(type, "SRV") ? ns_t_srv : !strcmp(type, "TXT") ? ns_t_txt :
		!strcmp(type, "CNAME") ? ns_t_cname : !strcmp(type, "PTR") ? ns_t_ptr : ns_t_a;
	unsigned char reply[4096];
	int length = res_query(name, ns_c_in, number, reply, sizeof reply);
	if (length < 0) {
		printf("%s\n", h_errno == HOST_NOT_FOUND ? "HOST_NOT_FOUND" :
			h_errno == NO_DATA ? "NO_DATA" : "TRY_AGAIN");
		return 1;
	}
	ns_msg message;
	if (ns_initparse(reply, length, &message))
		return 2;
	for (int at = 0; at < ns_msg_count(message, ns_s_an); at++) {
		ns_rr rr;
		char target[256] = "";
		if (ns_parserr(&message, ns_s_an, at, &rr))
			return 2;
		const unsigned char *data = ns_rr_rdata(rr);
		int skip = ns_rr_type(rr) == ns_t_srv ? 6 : 0;
		if (ns_rr_type(rr) == ns_t_txt) {
			printf("TXT %.*s\n", data[0], data + 1);
			continue;
		}
		if (ns_rr_type(rr) == ns_t_a) {
			printf("A %s\n", inet_ntop(AF_INET, data, target, sizeof target));
			continue;
		}
		dn_expand(reply, reply + length, data + skip, target, sizeof target);
		if (skip)
			printf("SRV %d %d %d %s\n", ns_get16(data), ns_get16(data + 2),
				ns_get16(data + 4), target);
		else
			printf("%s %s\n", ns_rr_type(rr) == ns_t_ptr ? "PTR" : "CNAME", target);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "addresses"))
		return addresses(atoi(argv[2]), argv[3]);
	if (argc == 3 && !strcmp(argv[1], "name"))
		return name_of(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "record"))
		return records(argv[2], argv[3]);
	return 3;
}
