#include "service/ctl/audit_claim.h"

#include <stdio.h>
#include <string.h>

static const char *const kind_texts[TALLY_AUDIT_KIND_COUNT] = {
#define X(name, text) [TALLY_AUDIT_##name] = (text),
    TALLY_AUDIT_KIND_LIST(X)
#undef X
};

/* The fields of verify.h; "version" is ahead or behind. */
static const struct field {
    const char *name;
    enum tally_audit_kind kind;
    bool personal;
} fields[] = {
    {"posts", TALLY_AUDIT_COUNTS, false},        {"comments", TALLY_AUDIT_COUNTS, false},
    {"name", TALLY_AUDIT_PROFILE, true},         {"email", TALLY_AUDIT_PROFILE, true},
    {"avatar", TALLY_AUDIT_PROFILE, true},       {"deleted", TALLY_AUDIT_DELETED, false},
    {"version", TALLY_AUDIT_BEHIND, false},      {"missing", TALLY_AUDIT_MISSING, false},
    {"flagged", TALLY_AUDIT_FLAGGED, false},     {"ghost", TALLY_AUDIT_GHOST, false},
    {"misplaced", TALLY_AUDIT_MISPLACED, false},
};
enum { FIELDS = sizeof fields / sizeof fields[0] };

const char *tally_audit_kind_text(enum tally_audit_kind kind)
{
    return kind_texts[kind];
}

static const struct field *field_of(const char *name)
{
    size_t i = 0;
    while (i < FIELDS - 1 && strcmp(fields[i].name, name) != 0)
        i++;
    return &fields[i];
}

static enum tally_audit_kind kind_of(const struct tally_verify_difference *difference)
{
    const enum tally_audit_kind kind = field_of(difference->field)->kind;
    return kind == TALLY_AUDIT_BEHIND && difference->found_version > difference->expected_version
               ? TALLY_AUDIT_AHEAD
               : kind;
}

static void append(char text[TALLY_AUDIT_TEXT_BYTES], const char *field, const char *value)
{
    const size_t length = strlen(text);
    (void)snprintf(text + length, TALLY_AUDIT_TEXT_BYTES - length, "%s%s %s",
                   length > 0 ? ", " : "", field, value);
}

static bool about_a_key(enum tally_audit_kind kind)
{
    return kind == TALLY_AUDIT_GHOST || kind == TALLY_AUDIT_MISPLACED;
}

bool tally_audit_claims_continue(const struct tally_audit_claims *claims,
                                 const struct tally_verify_difference *difference)
{
    if (claims->count == 0)
        return false;
    const struct tally_audit_claim *last = &claims->list[claims->count - 1];
    return last->user_id == difference->user_id && !about_a_key(last->kind) &&
           !about_a_key(kind_of(difference));
}

void tally_audit_claims_add(struct tally_audit_claims *claims,
                            const struct tally_verify_difference *difference)
{
    const enum tally_audit_kind kind = kind_of(difference);
    const bool personal = field_of(difference->field)->personal;
    if (!tally_audit_claims_continue(claims, difference))
        claims->list[claims->count++] = (struct tally_audit_claim){
            .user_id = difference->user_id,
            .kind = kind,
            .expected_version = difference->expected_version,
            .found_version = difference->found_version,
        };
    struct tally_audit_claim *claim = &claims->list[claims->count - 1];
    if (kind == TALLY_AUDIT_DELETED ||
        (kind == TALLY_AUDIT_COUNTS && claim->kind == TALLY_AUDIT_PROFILE))
        claim->kind = kind;
    append(claim->expected, difference->field, personal ? "(not logged)" : difference->expected);
    append(claim->found, difference->field, personal ? "(another)" : difference->found);
}
