#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "facts/facts_reader.hpp"
#include "facts_checks.hpp"
#include "gzip_bytes.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/json_file.hpp"
#include "text_streams.hpp"

namespace rometrace::facts_stream_test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::Contains;
using testing::gzip_of;
using testing::message_of;
using testing::stream_of;
using testing::TemporaryFolder;

constexpr const char* kList = R"([{"id": 1, "subject": "Áa", "object": "x", "prompt": "Áa is \"an\" x]"},
 {"id": "two", "subject": "B", "prompt": "{} was, or [was not"}, 7,
 {"name": "r", "prompt_templates": ["{} is in"], "samples": [{"subject": "C"}, {"subject": "D", "object": "E"}]} ,
	{"id": 5, "subject": "F\\", "prompt": "F\\ }"}
 ]
)";
constexpr const char* kLines = R"({"relations": {"r": ["{} is in"]}}

{"id": 1, "subject": "A", "relation": "r"}
{"id": 2, "subject": "B", "prompt":
{"id": 3, "subject": "C", "prompt": "Not the subject"}
{"subject": "D", "prompt": "D is"})";
constexpr const char* kCsv =
    "id;Subject;prompt\r\n1;A;\"{} is \"\"it\"\"\r\nor not\"\r\n2;B;{} was\n\n3;\"C;{} never closed\n4;D;{} is\r5;E;{} "
    "is";

/// All that there is of facts, as text.
std::string shown(const Facts& facts) {
  std::ostringstream text;
  for (const auto& source : facts.sources) text << source.records << ' ' << source.layout << '\n';
  for (const auto& record : facts.records) {
    if (const auto* bad = std::get_if<BadRecord>(&record)) {
      text << bad->record << " bad " << bad->where << ' ' << bad->id.value_or("-") << ' ' << bad->message << '\n';
      continue;
    }
    const auto& fact = std::get<Fact>(record);
    text << fact.record << ' ' << fact.where << ' ' << fact.id << fact.id_is_number << ' ' << fact.subject << ' '
         << fact.relation.value_or("-") << ' ' << fact.object.value_or("-") << ' ' << fact.remark;
    for (const auto& wording : fact.wordings) {
      text << '|' << wording.prompt << wording.held_out << wording.subject.begin << ':' << wording.subject.end;
    }
    text << '\n';
  }
  return text.str();
}

std::string read_in_steps(std::string_view bytes, std::size_t step) {
  auto text = stream_of(bytes, step);
  FactsReader reader(Need::kWordings);
  reader.read(text, {"facts", "", 0, ""});
  return shown(reader.take());
}

TEST_CASE("facts are the same in whatever pieces their file is read") {
  for (const std::string text : {kList, kLines, kCsv}) {
    const auto whole = read_in_steps(text, text.size() + 1);
    CAPTURE(whole);
    for (std::size_t step = 1; step < 90; ++step) {
      CAPTURE(step);
      CHECK(read_in_steps(text, step) == whole);
      CHECK(read_in_steps(gzip_of(text), step) == whole);
    }
  }
  CHECK(read_in_steps(kList, 1) == Contains("6 tuples, JSON\n"));
  CHECK(read_in_steps(kLines, 1) == Contains("4 rometrace/facts/1, JSON Lines\n"));
  CHECK(read_in_steps(kCsv, 1) == Contains("5 tuples, CSV\n"));
}

/// The parser quotes what it has read since the last string or number, wherever that was: that is left out.
std::string without_last_read(const std::string& message) {
  const auto at = message.find("; last read: '");
  return at == std::string::npos ? message : message.substr(0, at) + message.substr(message.rfind('\'') + 1);
}

TEST_CASE("a list that is no JSON is refused with the words that the whole of it would get") {
  const std::string text = kList;
  std::vector<std::string> broken{text + "x", text + "[]", "[",   "[,]",   "[1,", "[1 2]",
                                  "[1]]",     "[1}",       "[{]", "[\"a]", "[1,]"};
  for (std::size_t at = 1; at < text.size(); ++at) {
    broken.push_back(text.substr(0, at));
    broken.push_back(text.substr(0, at) + text.substr(at + 1));
    for (const char* more : {"\"", "]", "}", ",", "[", "{", "\\", "é"}) {
      broken.push_back(text.substr(0, at) + more + text.substr(at));
    }
  }
  std::size_t refused = 0;
  for (const auto& each : broken) {
    CAPTURE(each);
    const auto expected = message_of<Error>([&] { parse_json(each, "facts"); });
    if (expected == "(nothing thrown)") continue;
    ++refused;
    CHECK(without_last_read(message_of<Error>([&] { read_in_steps(each, 7); })) == without_last_read(expected));
  }
  CHECK(refused > 1000);
  CHECK(message_of<Error>([] { read_in_steps("[1, tru]", 7); }) == Contains("last read: ' tru]'"));
  CHECK(message_of<Error>([] { read_in_steps("[1] tru", 7); }) == Contains("last read: ' t"));
}

TEST_CASE("a list may be nested as deep as another value, and no deeper") {
  const auto nested = [](std::size_t levels) {
    return R"([{"subject": "A", "prompt": "A is", "x": )" + std::string(levels - 2, '[') +
           std::string(levels - 2, ']') + "}]";
  };
  CHECK(read_in_steps(nested(kMaxJsonDepth), 7) == Contains("1 tuples, JSON"));
  CHECK(message_of<Error>([&] { read_in_steps(nested(kMaxJsonDepth + 1), 7); }) ==
        "facts: nested deeper than 256 levels");
}

Facts read_limited(std::string_view content, std::int64_t limit, Limit::Beyond beyond) {
  const TemporaryFolder folder;
  return read_facts(std::vector{folder.write("facts", content)}, Limit{limit, beyond});
}

TEST_CASE("with a limit the first records are those of the whole, and the others' subjects too") {
  for (const std::string text : {kList, kLines, kCsv}) {
    CAPTURE(text);
    const TemporaryFolder folder;
    const std::vector<fs::path> files{folder.write("facts", text)};
    const auto all = read_facts(files);
    for (std::size_t limit = 1; limit <= all.records.size() + 1; ++limit) {
      CAPTURE(limit);
      auto first = all;
      first.sources.clear();
      first.records.resize(std::min(limit, all.records.size()));
      for (const auto beyond : {Limit::Beyond::kNothing, Limit::Beyond::kSubjects}) {
        auto limited = read_facts(files, Limit{static_cast<std::int64_t>(limit), beyond});
        CHECK(limited.sources.at(0).sha256 == all.sources.at(0).sha256);
        const bool stops = beyond == Limit::Beyond::kNothing;
        CHECK(limited.sources.at(0).records ==
              static_cast<std::int64_t>(stops ? first.records.size() : all.records.size()));
        CHECK(subjects_of(limited) == (stops ? subjects_of(first) : subjects_of(all)));
        limited.sources.clear();
        CHECK(shown(limited) == shown(first));
      }
    }
  }
}

TEST_CASE("what is wrong behind the limit matters only where the rest is needed") {
  const std::string list = R"([{"subject": "A", "prompt": "A is"}, {"subject": "B", "prompt": )";
  CHECK(shown(read_limited(list, 1, Limit::Beyond::kNothing)) == Contains("1 tuples, JSON"));
  CHECK(message_of<Error>([&] { read_limited(list, 1, Limit::Beyond::kSubjects); }) == Contains("not JSON"));
  CHECK(message_of<Error>([&] { testing::read_text_as_facts(list); }) == Contains("not JSON"));
  const std::string lines =
      "{\"subject\": \"A\", \"prompt\": \"A is\"}\n{\"subject\": \"B\"\n{\"subject\": \"C\", \"prompt\": \"C\"}";
  CHECK(read_limited(lines, 1, Limit::Beyond::kSubjects).further_subjects == std::vector<std::string>{"C"});
}

TEST_CASE("a repeated id behind the limit has no subject, as it is a bad record") {
  const std::string lines =
      "{\"id\": 1, \"subject\": \"A\", \"prompt\": \"A is\"}\n{\"id\": 1, \"subject\": \"B\", \"prompt\": \"B is\"}";
  CHECK(subjects_of(testing::read_text_as_facts(lines)) == std::vector<std::string>{"A"});
  CHECK(subjects_of(read_limited(lines, 1, Limit::Beyond::kSubjects)) == std::vector<std::string>{"A"});
}

TEST_CASE("of the files behind the limit the checksums alone are taken") {
  const TemporaryFolder folder;
  const std::vector<fs::path> files{folder.write("a", kLines), folder.write("b", "no facts")};
  CHECK(message_of<Error>([&] { read_facts(files); }) == Contains("b: found a first line"));
  const auto facts = read_facts(files, Limit{2, Limit::Beyond::kNothing});
  REQUIRE(facts.sources.size() == 2);
  CHECK(facts.sources[1].layout == "not read");
  CHECK(facts.sources[1].records == 0);
  CHECK(facts.sources[1].sha256.size() == 64);
  CHECK(message_of<Error>([&] { read_facts(files, Limit{0, Limit::Beyond::kNothing}); }) == Contains("limit is 0"));
}

TEST_CASE("shipped and shared facts are the same as a list, as lines and packed") {
  std::vector<fs::path> files;
  for (const fs::path folder : {fs::path(ROMETRACE_SOURCE_DIR) / "../shared/facts"}) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  const auto shipped = parse_json_file(fs::path(ROMETRACE_SOURCE_DIR) / "share/rometrace/facts.json");
  std::vector<json> lists;
  for (const auto& file : files) lists.push_back(parse_json_file(file));
  json tuples = json::array();
  for (const auto& fact : shipped["facts"]) {
    tuples.push_back(fact);
    tuples.back()["prompt"] = "{} is";
  }
  lists.push_back(tuples);
  for (const auto& list : lists) {
    REQUIRE(list.is_array());
    std::string lines;
    for (const auto& record : list) lines += record.dump() + "\n";
    const TemporaryFolder folder;
    const auto records_in = [&](std::string_view content) {
      const auto text = shown(read_facts(std::vector{folder.write("facts", content)}));
      return text.substr(text.find('\n'));  // less the layout
    };
    // As a member of an object the list is read whole, and no element of it is cut out.
    auto whole = records_in(json{{"facts", list}}.dump());
    CHECK(records_in(list.dump()) == whole);
    CHECK(records_in(list.dump(2)) == whole);
    CHECK(records_in(gzip_of(list.dump())) == whole);
    for (std::size_t at = 0; (at = whole.find(", record ", at)) != std::string::npos;) whole.replace(at, 9, ", line ");
    CHECK(records_in(lines) == whole);
  }
}

}  // namespace
}  // namespace rometrace::facts_stream_test
