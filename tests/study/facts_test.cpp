#include "rometrace/study/facts.hpp"

#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace {
namespace {

using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

TEST_CASE("the subjects of our own layout come in order, with repeats") {
  const TemporaryFolder folder;
  const auto file = folder.write("facts.json",
                                 R"({"schema": "rometrace/facts/1", "relations": {"plays": {"prompt": "{} plays"}},
      "facts": [{"id": "a", "subject": "Miles Davis", "relation": "plays", "object": "trumpet"},
                {"id": "b", "subject": "Zürich", "relation": "plays", "object": "x"},
                {"id": "c", "subject": "Miles Davis", "relation": "plays", "object": "y"}]})");
  CHECK(read_subjects(file) == std::vector<std::string>{"Miles Davis", "Zürich", "Miles Davis"});
}

TEST_CASE("the subjects of a list of records are read") {
  const TemporaryFolder folder;
  const auto file = folder.write("known.json", R"([{"known_id": 0, "subject": "Vinson Massif", "attribute": "x"}])");
  CHECK(read_subjects(file) == std::vector<std::string>{"Vinson Massif"});
}

TEST_CASE("a facts file that gives no subjects is refused by record number and id") {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"3", "facts.json: expected a list of records, found 3"},
      {"{}", "facts.json: has no \"facts\""},
      {R"({"facts": {}})", "expected a list of records, found {}"},
      {R"({"facts": []})", "has no records"},
      {"[]", "has no records"},
      {R"({"schema": "rometrace/facts/2", "facts": [{"subject": "a"}]})",
       "schema is \"rometrace/facts/2\"; this version reads \"rometrace/facts/1\""},
      {R"([{"subject": "a"}, "b"])", "facts.json, record 2: expected an object with a \"subject\", found \"b\""},
      {R"([{"known_id": 16, "prompt": "a"}])", "facts.json, record 1 (known_id 16): has no \"subject\""},
      {R"([{"id": "x", "subject": 3}])", "facts.json, record 1 (id \"x\"): subject is 3; expected a string"},
      {R"({"facts": [{"subject": "a"}, {"case_id": 5, "subject": ""}]})", "record 2 (case_id 5): subject is empty"},
      {R"([{"subject": "a"},])", "facts.json: line 1, column 19: not JSON"},
  };
  for (const auto& [content, expected] : cases) {
    CAPTURE(content);
    const TemporaryFolder folder;
    const auto file = folder.write("facts.json", content);
    const std::string message = message_of<Error>([&] { read_subjects(file); });
    CHECK(message == Contains(expected));
    CHECK(testing::is_one_line(message));
  }
}

TEST_CASE("the paper's facts have 1209 subjects") {
  const std::filesystem::path file = ROMETRACE_SOURCE_DIR "/../shared/facts/known_1000.json";
  if (!std::filesystem::exists(file)) return;
  const std::vector<std::string> subjects = read_subjects(file);
  CHECK(subjects.size() == 1209);
  CHECK(subjects.front() == "Vinson Massif");
}

}  // namespace
}  // namespace rometrace
