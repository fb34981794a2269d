/* A Modbus server on libmodbus: `modbus_peer tcp` or `modbus_peer rtu DEVICE`.
 *
 * Unit 1, input and holding registers 0 to 199. Registers 0 and 1 are a uint32 that counts up every 50 ms, high word first;
 * 2 to 9 are `FLOATS` as float32 in the order CDAB; 10 and on are their own address. It prints `ready PORT` or `ready 0`.
 * On standard input: `drop` cuts every connection, `mute 1` answers nothing, `mute 0` answers again, end of file ends it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus/modbus.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REGISTERS = 200, STEP_MS = 50, UNIT = 1 };
static const float FLOATS[] = {21.37f, 6.283f, 1450.2f, 0.137f};

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void count(modbus_mapping_t *map, int64_t begin_ms) {
    uint32_t n = (uint32_t)((now_ms() - begin_ms) / STEP_MS);
    map->tab_input_registers[0] = map->tab_registers[0] = (uint16_t)(n >> 16);
    map->tab_input_registers[1] = map->tab_registers[1] = (uint16_t)n;
}

static void answer(modbus_t *bus, modbus_mapping_t *map, int muted, int *broken) {
    uint8_t query[MODBUS_MAX_ADU_LENGTH];
    int length = modbus_receive(bus, query);
    *broken = length < 0;
    if (length > 0 && !muted)
        modbus_reply(bus, query, length, map);
}

/* 0 at the end of the input. */
static int command(int *muted, int *drop) {
    char line[64];
    *drop = 0;
    if (!fgets(line, sizeof line, stdin))
        return 0;
    if (!strncmp(line, "drop", 4))
        *drop = 1;
    else if (!strncmp(line, "mute ", 5))
        *muted = atoi(line + 5);
    return 1;
}

static int serve_tcp(modbus_mapping_t *map, int64_t begin_ms) {
    modbus_t *bus = modbus_new_tcp("127.0.0.1", 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0), muted = 0, drop, broken;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    fd_set open_, ready;
    if (!bus || listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 16) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        return perror("modbus_peer"), 1;
    modbus_set_slave(bus, UNIT);
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    FD_ZERO(&open_);
    FD_SET(listener, &open_);
    FD_SET(STDIN_FILENO, &open_);
    for (;;) {
        ready = open_;
        if (select(FD_SETSIZE, &ready, NULL, NULL, NULL) < 0)
            return perror("modbus_peer"), 1;
        count(map, begin_ms);
        for (int fd = 0; fd < FD_SETSIZE; fd++) {
            if (!FD_ISSET(fd, &ready))
                continue;
            if (fd == STDIN_FILENO) {
                if (!command(&muted, &drop))
                    return 0;
                for (int other = 3; drop && other < FD_SETSIZE; other++)
                    if (other != listener && FD_ISSET(other, &open_)) {
                        close(other);
                        FD_CLR(other, &open_);
                        FD_CLR(other, &ready);
                    }
            } else if (fd == listener) {
                int client = accept(listener, NULL, NULL);
                if (client >= 0 && client < FD_SETSIZE)
                    FD_SET(client, &open_);
            } else {
                modbus_set_socket(bus, fd);
                answer(bus, map, muted, &broken);
                if (broken) {
                    close(fd);
                    FD_CLR(fd, &open_);
                }
            }
        }
    }
}

static int serve_rtu(const char *device, modbus_mapping_t *map, int64_t begin_ms) {
    modbus_t *bus = modbus_new_rtu(device, 115200, 'N', 8, 1);
    int muted = 0, drop, broken;
    if (!bus || modbus_set_slave(bus, UNIT) || modbus_connect(bus))
        return fprintf(stderr, "modbus_peer: %s: %s\n", device, modbus_strerror(errno)), 1;
    printf("ready 0\n");
    fflush(stdout);
    int fd = modbus_get_socket(bus);
    for (;;) {
        fd_set ready;
        FD_ZERO(&ready);
        FD_SET(fd, &ready);
        FD_SET(STDIN_FILENO, &ready);
        if (select(fd + 1, &ready, NULL, NULL, NULL) < 0)
            return perror("modbus_peer"), 1;
        count(map, begin_ms);
        if (FD_ISSET(STDIN_FILENO, &ready) && !command(&muted, &drop))
            return 0;
        if (FD_ISSET(fd, &ready))
            answer(bus, map, muted, &broken);
    }
}

int main(int argc, char **argv) {
    int64_t begin_ms = now_ms();
    modbus_mapping_t *map = modbus_mapping_new(REGISTERS, REGISTERS, REGISTERS, REGISTERS);
    if (!map)
        return perror("modbus_peer"), 1;
    for (int i = 10; i < REGISTERS; i++)
        map->tab_input_registers[i] = map->tab_registers[i] = (uint16_t)i;
    for (int i = 0; i < 4; i++) {
        uint32_t bits;
        memcpy(&bits, &FLOATS[i], sizeof bits);
        map->tab_registers[2 + 2 * i] = map->tab_input_registers[2 + 2 * i] = (uint16_t)bits;
        map->tab_registers[3 + 2 * i] = map->tab_input_registers[3 + 2 * i] = (uint16_t)(bits >> 16);
    }
    setvbuf(stdin, NULL, _IONBF, 0);
    if (argc == 2 && !strcmp(argv[1], "tcp"))
        return serve_tcp(map, begin_ms);
    if (argc == 3 && !strcmp(argv[1], "rtu"))
        return serve_rtu(argv[2], map, begin_ms);
    fprintf(stderr, "usage: modbus_peer tcp | rtu DEVICE\n");
    return 2;
}
