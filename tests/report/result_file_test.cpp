#include "rometrace/report/result_file.hpp"

#include <unistd.h>

#include <string>
#include <vector>

#include "batch_files.hpp"
#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::result_file_test {
namespace {

using Json = nlohmann::ordered_json;
using testing::batch_file;
using testing::batch_header;
using testing::batch_line;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

/// What a file gives, read to its end.
struct Contents {
  std::vector<ResultRecord> records;
  std::vector<bool> in_batch;
  std::string torn;
};

Contents read(const std::filesystem::path& path) {
  ResultFile file(path);
  Contents contents;
  while (auto record = file.next()) {
    contents.records.push_back(*std::move(record));
    contents.in_batch.push_back(file.header() != nullptr);
  }
  contents.torn = file.torn();
  return contents;
}

Contents read(const TemporaryFolder& folder, const std::string& text) {
  return read(folder.write("results.jsonl", text));
}

std::string refusal(const TemporaryFolder& folder, const std::string& text) {
  const auto message = message_of<Error>([&] { read(folder, text); });
  CHECK(testing::is_one_line(message));
  return message;
}

/// A trace by itself.
Json single() {
  auto json = Json::parse(batch_line(1));
  json.erase("fact");
  return json;
}

std::string of_schema(const std::string& schema) {
  return Json({{"schema", schema}, {"rometrace", "0.1.0"}}).dump() + "\n";
}

TEST_CASE("the records of a batch come in order, as they stand, with the header") {
  const TemporaryFolder folder;
  const auto contents = read(folder, batch_file(5, {}, 5));
  REQUIRE(contents.records.size() == 5);
  for (std::size_t i = 0; i < 5; ++i) {
    const std::string status = i == 2 ? "skipped" : "traced";  // as batch_file() has it
    CHECK(contents.records[i].json.dump() == batch_line(static_cast<std::int64_t>(i) + 1, status));
    CHECK(contents.records[i].line == static_cast<std::int64_t>(i) + 2);
    CHECK(contents.records[i].where == Contains("results.jsonl, line " + std::to_string(i + 2)));
    CHECK(contents.in_batch[i]);
  }
  CHECK(contents.torn.empty());
  ResultFile file(folder.path() / "results.jsonl");
  CHECK(file.schema() == "rometrace/batch/1");
  CHECK(file.first().dump() == batch_header(5).dump());
  REQUIRE(file.next());
  CHECK(file.header()->dump() == batch_header(5).dump());
}

TEST_CASE("a trace by itself may be on one line or printed over many") {
  const TemporaryFolder folder;
  const auto json = single();
  for (const auto& text : {json.dump(), json.dump() + "\n", json.dump(2) + "\n", "\n\n" + json.dump(1) + "\n\n"}) {
    const auto contents = read(folder, text);
    REQUIRE(contents.records.size() == 1);
    CHECK(contents.records[0].json.dump() == json.dump());
    CHECK_FALSE(contents.in_batch[0]);
    CHECK(contents.torn.empty());
  }
  CHECK(read(folder, "\n\n" + json.dump(1)).records.at(0).line == 3);
}

TEST_CASE("traces behind one another are read, each with the header that is its own") {
  const TemporaryFolder folder;
  const auto line = single().dump() + "\n";
  CHECK(read(folder, line + "\n" + line + batch_file(2, {}, 2) + line).in_batch ==
        std::vector<bool>{false, false, true, true, false});
}

TEST_CASE("a batch that has no line yet has no records") {
  const TemporaryFolder folder;
  CHECK(read(folder, batch_header(5).dump() + "\n").records.empty());
}

TEST_CASE("a last line that is cut short is left out, and told; one that is whole needs no line end") {
  const TemporaryFolder folder;
  const auto text = batch_file(4, {}, 4);
  const auto last = batch_line(4).size();
  for (const std::size_t cut : {std::size_t{2}, last / 2, last}) {
    const auto contents = read(folder, text.substr(0, text.size() - cut));
    CHECK(contents.records.size() == 3);
    CHECK(contents.torn == Contains("results.jsonl: line 5 is cut short; it was left out"));
  }
  CHECK(read(folder, text.substr(0, text.size() - 1)).records.size() == 4);
  CHECK(read(folder, text + std::string(100, '\0')).torn == Contains("line 6 is cut short"));
  CHECK(read(folder, text + "[1, 2]\n\n").torn == Contains("line 6 is cut short"));
}

TEST_CASE("damage that something stands behind is refused by its line") {
  const TemporaryFolder folder;
  const auto line = batch_line(1);
  CHECK(refusal(folder, batch_header(2).dump() + "\n" + line.substr(0, 40) + "\n" + batch_line(2) + "\n") ==
        Contains("line 2, column 41: not JSON"));
  CHECK(refusal(folder, batch_header(2).dump() + "\n[]\n" + batch_line(2) + "\n") ==
        Contains("line 2: no JSON object"));
}

TEST_CASE("a file that begins with no whole object is refused") {
  const TemporaryFolder folder;
  const auto text = single().dump();
  CHECK(refusal(folder, "") == Contains("results.jsonl: is empty; expected traces"));
  CHECK(refusal(folder, "\n \n") == Contains("is empty"));
  CHECK(refusal(folder, text.substr(0, 100)) == Contains("line 1, column 101: not JSON"));
  CHECK(refusal(folder, single().dump(2).substr(0, 200)) == Contains("not JSON"));
  CHECK(refusal(folder, "fact,kind\n1,2\n") == Contains("line 1, column 3: not JSON"));
  CHECK(refusal(folder, "[1, 2]\n") == Contains("line 1: no JSON object"));
  CHECK(refusal(folder, std::string(300, '[') + std::string(300, ']')) == Contains("nested deeper than 256 levels"));
  CHECK(refusal(folder, std::string("{\0}\n", 4)) == Contains("a zero byte"));
  CHECK(message_of<Error>([&] { read(folder.path() / "not.jsonl"); }) == Contains("not.jsonl"));
}

TEST_CASE("files of other schemas are refused by name, with what to do with them") {
  const TemporaryFolder folder;
  const auto probe = refusal(folder, of_schema("rometrace/probe/1"));
  CHECK(probe == Contains("results.jsonl, line 1: results of a probe (rometrace/probe/1); expected traces"));
  CHECK(probe == Contains("rometrace summary"));
  CHECK(refusal(folder, of_schema("rometrace/summary/1")) == Contains("rometrace show"));
  CHECK(refusal(folder, of_schema("rometrace/edited-fact/1")) == Contains("results of edits"));
  CHECK(refusal(folder, of_schema("rometrace/calibration/1")) == Contains("a calibration"));
  CHECK(refusal(folder, of_schema("rometrace/facts/1")) == Contains("rometrace --facts traces them"));
  CHECK(refusal(folder, of_schema("rometrace/trace/2")) == Contains("another version of rometrace"));
  CHECK(refusal(folder, of_schema("rometrace/batch/2")) == Contains("another version of rometrace"));
  CHECK(refusal(folder, of_schema("some/thing")) == Contains("of the schema \"some/thing\""));
  CHECK(refusal(folder, "{\"schema\": 1}") == Contains("an object without a schema"));
  for (const std::string command : {"probe", "edit"}) {
    auto header = batch_header(3);
    header["command"] = command;
    CHECK(refusal(folder, header.dump() + "\n") ==
          Contains("results of " + std::string(command == "edit" ? "edits" : "a probe")));
  }
  CHECK(refusal(folder, testing::safetensors_bytes(
                            R"({"__metadata__":{"rometrace":"{\"schema\":\"rometrace/edit/1\"}"}})", "")) ==
        Contains("an edit file; expected traces"));
}

TEST_CASE("what stands first is there to be looked at, whatever it is") {
  const TemporaryFolder folder;
  const ResultFile file(folder.write("summary.json", "{\n \"schema\": \"rometrace/summary/1\"\n}\n"));
  CHECK(file.schema() == "rometrace/summary/1");
  CHECK(file.first() == Json({{"schema", "rometrace/summary/1"}}));
  CHECK(ResultFile(folder.write("other.json", "{}")).schema().empty());
}

}  // namespace
}  // namespace rometrace::result_file_test
