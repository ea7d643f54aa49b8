#include "hub/names.hpp"

#include "checks.hpp"

namespace rometrace::names_test {
namespace {

TEST_CASE("a folder of the cache gives back the name that it is of") {
  for (const char* name : {"gpt2", "openai-community/gpt2-xl", "a/b.c_d"}) {
    CAPTURE(name);
    CHECK(name_of_folder(folder_in_cache(name)) == name);
  }
  for (const char* folder : {"datasets--a--b", ".locks", "models--", "models--a--b--c", "version.txt"}) {
    CAPTURE(folder);
    CHECK(name_of_folder(folder) == "");
  }
}

}  // namespace
}  // namespace rometrace::names_test
