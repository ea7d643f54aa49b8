#include "rometrace/summary/summary_reader.hpp"

#include <cmath>

#include "checks.hpp"
#include "files.hpp"
#include "summary/summary_lines.hpp"

namespace rometrace::summary_reader_test {
namespace {

using namespace testing;

struct Read {
  std::vector<std::string> where;
  bool torn = false;
};

Read read_all(const std::filesystem::path& file) {
  SummaryReader reader(file.string());
  Read result;
  SummaryLine line;
  while (reader.next(line)) result.where.push_back(line.where.substr(line.where.rfind(", ") + 2));
  result.torn = reader.torn();
  return result;
}

std::string message_for(const std::string& text) {
  return message_of<Error>([&] { parse_summary_line(text, "a.jsonl, line 3"); });
}

}  // namespace

TEST_CASE("of a line the scores are read as numbers, and the rest but grids as JSON") {
  const auto line = parse_summary_line(traced_line(7, 3, 0, 1).dump(), "a.jsonl, line 3");
  CHECK(line.type == SummaryLine::Type::kTrace);
  CHECK(line.where == "a.jsonl, line 3");
  CHECK(line.json["fact"]["record"] == 7);
  CHECK(line.json["tokens"].size() == 3);
  CHECK_FALSE(line.json.contains("grids"));
  CHECK_FALSE(line.json.contains("token_bytes"));
  CHECK(line.json["total_effect"] == 0.625);  // behind the part that is left out
  REQUIRE(line.grids.size() == 2);
  const auto& grid = line.grids[1];
  CHECK(grid.kind == "state");  // the parser of this test sorts names
  CHECK(grid.window == 1);
  CHECK(grid.rows == 3);
  CHECK(grid.layers == 2);
  CHECK(grid.scores ==
        std::vector<double>{0.125 + 0.01, 0.125 + 0.02, 0.125 + 0.02, 0.125 + 0.04, 0.125 + 0.03, 0.125 + 0.06});
}

TEST_CASE("whole numbers are scores and null is no number") {
  const auto line = parse_summary_line(
      R"({"schema":"rometrace/trace/1","grids":{"mlp":{"scores":[[0,1],[null,-2]],"window":4}},"status":"traced"})",
      "w");
  REQUIRE(line.grids.size() == 1);
  CHECK(line.grids[0].scores[1] == 1);
  CHECK(std::isnan(line.grids[0].scores[2]));
  CHECK(line.grids[0].scores[3] == -2);
  CHECK(line.json["status"] == "traced");
}

TEST_CASE("a grid of some positions or of heads says which and how many") {
  auto traced = whole_line(1, {2, 4});
  auto line = parse_summary_line(traced.dump(), "w");
  REQUIRE(line.grids.size() == 4);
  const auto& head = line.grids[0];  // the parser of this test sorts names
  CHECK(head.kind == "head");
  CHECK(head.heads == 2);
  CHECK(head.rows == 2);
  CHECK(head.layers == 2);
  CHECK(head.cells() == 4);
  CHECK(*head.positions == std::vector<std::int64_t>{2, 4});
  const double score = 0.125 + 0.01 * 3;
  CHECK(head.scores[0] == score);
  CHECK(head.scores[1] == score / 2);
  CHECK(head.scores.size() == 8);
  CHECK(line.grids[1].heads == 0);
  CHECK(line.grids[1].cells() == 2);
  CHECK(line.json["knockout"]["window"] == 9);
  CHECK_FALSE(line.json.contains("measures"));
  CHECK_FALSE(parse_summary_line(traced_line(1).dump(), "w").grids[0].positions);
  for (auto& [kind, grid] : traced["grids"].items()) {
    grid["positions"] = Json::array();
    grid["scores"] = Json::array();
  }
  line = parse_summary_line(traced.dump(), "w");
  CHECK(line.grids[0].rows == 0);
  CHECK(line.grids[0].positions->empty());
}

TEST_CASE("damage is named with its place") {
  CHECK(message_for(R"({"schema":"rometrace/trace/1","sco)") ==
        Contains("a.jsonl, line 3: byte 35: not JSON; expected"));
  CHECK(message_for("[1]") == Contains("not an object"));
  CHECK(message_for(std::string("{\"a\":1}\0", 8)) == Contains("byte 8: a zero byte"));
  CHECK(message_for(std::string(100, '[')) == Contains("nested deeper"));
  for (const std::string grids : {R"({"state":{"scores":[[1,2],[3]]}})",
                                  R"({"state":{"scores":[[]]}})",
                                  R"({"state":{"scores":[1]}})",
                                  R"({"state":{"scores":[["a"]]}})",
                                  R"({"state":{"scores":[[[1]]]}})",
                                  R"({"state":{"scores":[{"a":1}]}})",
                                  R"({"head":{"scores":[[1,2]]}})",
                                  R"({"head":{"scores":[[[1,2],[3]]]}})",
                                  R"({"head":{"scores":[[[]]]}})",
                                  R"({"head":{"scores":[[[1,2]],[[1,2],[3,4]]]}})",
                                  R"({"head":{"scores":[[[[1]]]]}})",
                                  R"({"head":{"heads":3,"scores":[[[1,2]]]}})",
                                  R"({"head":{"heads":"x"}})",
                                  R"({"head":{"heads":1.5}})",
                                  R"({"mlp":{"heads":2,"scores":[[1,2]]}})",
                                  R"({"state":{"positions":[0.5]}})",
                                  R"({"state":{"positions":[-1]}})",
                                  R"({"state":{"positions":["a"]}})",
                                  R"({"state":{"positions":[[1]]}})",
                                  R"({"state":{"positions":[null]}})",
                                  R"({"state":{"positions":null}})",
                                  R"({"state":{"positions":3}})",
                                  R"({"state":{"positions":[{}]}})"}) {
    CAPTURE(grids);
    const auto message = message_for(R"({"schema":"rometrace/trace/1","grids":)" + grids + "}");
    CHECK(message == Contains("a.jsonl, line 3: "));
    CHECK(message == Contains("grid"));
    CHECK(is_one_line(message));
  }
}

TEST_CASE("grids of any other shape are no grids and no crash") {
  for (const std::string grids :
       {"null", "5", "[]", "[[1]]", R"([{"scores":[[1]]}])", R"({"state":3})", R"({"state":[1]})",
        R"({"state":{"window":"a"}})", "{}", R"({"state":{"scores":7}})"}) {
    CAPTURE(grids);
    try {
      const auto line = parse_summary_line(R"({"schema":"rometrace/trace/1","grids":)" + grids + R"(,"a":1})", "w");
      CHECK(line.json["a"] == 1);
      for (const auto& grid : line.grids) CHECK(grid.rows == 0);
    } catch (const DamagedLine&) {
    }
  }
}

TEST_CASE("what is no result of rometrace is refused by its schema") {
  CHECK(message_for("{}") == Contains("no schema; expected rometrace/trace/1"));
  CHECK(message_for(R"({"schema":"rometrace/summary/1"})") == Contains("schema \"rometrace/summary/1\""));
  CHECK(message_for(R"({"schema":3})") == Contains("no text"));
}

TEST_CASE("lines are numbered as in the file and blank ones passed over") {
  const TemporaryFolder folder;
  const auto line = traced_line(1).dump();
  const auto read = read_all(folder.write("a.jsonl", line + "\n\n \t\r\n" + line + "\r\n" + line));
  CHECK(read.where == std::vector<std::string>{"line 1", "line 4", "line 5"});
  CHECK_FALSE(read.torn);
}

TEST_CASE("a last line cut anywhere ends the file") {
  const TemporaryFolder folder;
  const auto whole = header_line(3).dump() + "\n" + traced_line(1).dump() + "\n";
  const auto last = traced_line(2).dump();
  for (std::size_t size = 1; size < last.size(); size += 7) {
    const auto read = read_all(folder.write("a.jsonl", whole + last.substr(0, size)));
    CAPTURE(size);
    CHECK(read.where.size() == 2);
    CHECK(read.torn);
  }
  const auto zeros = read_all(folder.write("a.jsonl", whole + std::string(100, '\0')));
  CHECK(zeros.where.size() == 2);
  CHECK(zeros.torn);
}

TEST_CASE("a damaged line before others is an error") {
  const TemporaryFolder folder;
  const auto line = traced_line(1).dump();
  const auto file = folder.write("a.jsonl", line + "\n" + line.substr(0, 50) + "\n" + line + "\n");
  CHECK(message_of<Error>([&] { read_all(file); }) == Contains("a.jsonl, line 2: byte 51: not JSON"));
}

TEST_CASE("lines longer than what is read at a time come whole") {
  const TemporaryFolder folder;
  std::vector<Json> lines;
  for (int i = 1; i <= 5; ++i) {
    lines.push_back(traced_line(i));
    lines.back()["prompt"] = std::string(300000, static_cast<char>('a' + i));
  }
  SummaryReader reader(folder.write("a.jsonl", as_text(lines)).string());
  SummaryLine line;
  for (int i = 1; i <= 5; ++i) {
    REQUIRE(reader.next(line));
    CHECK(line.json["prompt"] == lines[static_cast<std::size_t>(i) - 1]["prompt"]);
  }
  CHECK_FALSE(reader.next(line));
  CHECK(reader.bytes_read() == reader.size());
}

TEST_CASE("reading stops when that is asked for, and names a file that is not there") {
  const TemporaryFolder folder;
  std::stop_source stop;
  stop.request_stop();
  SummaryReader reader(folder.write("a.jsonl", "x").string(), stop.get_token());
  SummaryLine line;
  CHECK_THROWS_AS(reader.next(line), Interrupted);
  CHECK(message_of<Error>([] { SummaryReader("no-such.jsonl"); }) == "no-such.jsonl: no such file");
}

}  // namespace rometrace::summary_reader_test
