# Writes OUTPUT, a C table of the migrations in DIRECTORY (NNNN_name.sql, from 0001 without a gap),
# each with its text and SHA-256, so that tallyctl carries the schema it needs.
# cmake -D DIRECTORY=schema/postgres -D OUTPUT=migrations.c -P migrations.cmake
file(GLOB files ${DIRECTORY}/*.sql)
list(SORT files)
set(texts "")
set(rows "")
set(expected 1)
foreach(path ${files})
  get_filename_component(name ${path} NAME_WE)
  if(NOT name MATCHES "^([0-9][0-9][0-9][0-9])_([a-z0-9_]+)$")
    message(FATAL_ERROR "${path}: a migration is named NNNN_lower_case.sql")
  endif()
  set(title ${CMAKE_MATCH_2})
  string(REGEX REPLACE "^0+" "" version ${CMAKE_MATCH_1})
  if(NOT version EQUAL expected)
    message(FATAL_ERROR "${path}: migration ${expected} is missing before it")
  endif()
  math(EXPR expected "${expected} + 1")
  file(SHA256 ${path} checksum)
  file(READ ${path} bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(APPEND texts "static const char text_${version}[] = {${bytes}0};\n")
  string(APPEND rows "    {${version}, \"${title}\", text_${version}, \"${checksum}\"},\n")
endforeach()
math(EXPR count "${expected} - 1")
file(WRITE ${OUTPUT}.new "/* Made by lib/store/migrations.cmake from schema/postgres. */
#include \"store/migrate.h\"

${texts}
static const struct tally_migration list[] = {
${rows}    {0, NULL, NULL, NULL},
};

const struct tally_migration_set *tally_migrations(void)
{
    static const struct tally_migration_set set = {list, ${count}};
    return &set;
}
")
execute_process(COMMAND ${CMAKE_COMMAND} -E copy_if_different ${OUTPUT}.new ${OUTPUT})
file(REMOVE ${OUTPUT}.new)
