/* A large table inside snmpd, for the benchmark of walks: twelve columns, as many rows as KLAXON_ROWS says, kept as net-snmp
 * keeps its own large tables. Loaded with dlmod. */

#include <net-snmp/net-snmp-config.h>
#include <net-snmp/net-snmp-includes.h>

#include <net-snmp/agent/net-snmp-agent-includes.h>
#include <net-snmp/agent/table_container.h>

#define FIRST_COLUMN 2
#define LAST_COLUMN 13

struct row {
    netsnmp_index index; /* first, as the container asks */
    oid number;
    char text[80];
};

static int answer(netsnmp_mib_handler *handler, netsnmp_handler_registration *registration,
                  netsnmp_agent_request_info *info, netsnmp_request_info *requests) {
    (void)handler, (void)registration, (void)info;
    for (netsnmp_request_info *request = requests; request; request = request->next) {
        if (request->processed)
            continue;
        struct row *row = netsnmp_container_table_row_extract(request);
        netsnmp_table_request_info *table = netsnmp_extract_table_info(request);
        if (!row || !table) {
            netsnmp_set_request_error(info, request, SNMP_NOSUCHINSTANCE);
            continue;
        }
        /* Half texts and half numbers, as in a table of alarms. */
        if (table->colnum % 2) {
            long number = (long)row->number;
            snmp_set_var_typed_value(request->requestvb, ASN_INTEGER, &number, sizeof number);
        } else {
            snmp_set_var_typed_value(request->requestvb, ASN_OCTET_STR, row->text, strlen(row->text));
        }
    }
    return SNMP_ERR_NOERROR;
}

void init_table(void);

void init_table(void) {
    static oid root[] = {1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 7781, 1};
    const char *asked = getenv("KLAXON_ROWS");
    long rows = asked ? atol(asked) : 1000;
    netsnmp_handler_registration *registration =
        netsnmp_create_handler_registration("table", answer, root, OID_LENGTH(root), HANDLER_CAN_RONLY);
    netsnmp_table_registration_info *info = SNMP_MALLOC_TYPEDEF(netsnmp_table_registration_info);
    netsnmp_table_helper_add_indexes(info, ASN_UNSIGNED, 0);
    info->min_column = FIRST_COLUMN;
    info->max_column = LAST_COLUMN;
    netsnmp_container *container = netsnmp_container_find("table_container");
    for (long number = 1; number <= rows; number++) {
        struct row *row = calloc(1, sizeof *row);
        row->number = (oid)number;
        row->index.len = 1;
        row->index.oids = &row->number;
        snprintf(row->text, sizeof row->text, "host=compute-%ld.interface=eth0 is down since then", number);
        CONTAINER_INSERT(container, row);
    }
    netsnmp_container_table_register(registration, info, container, TABLE_CONTAINER_KEY_NETSNMP_INDEX);
}
