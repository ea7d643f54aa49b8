#include "rometrace/results/merge.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "batch_files.hpp"
#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::merge_test {
namespace {

namespace fs = std::filesystem;
using testing::batch_file;
using testing::batch_header;
using testing::batch_line;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

struct Merged {
  std::string text;
  MergeReport report;
};

Merged merge(const std::vector<fs::path>& files, const MergeRules& rules = {}) {
  Merged merged;
  merged.report = merge_results(files, rules, [&](std::string_view piece) { merged.text += piece; });
  return merged;
}

std::string refusal(const std::vector<fs::path>& files, const MergeRules& rules = {}) {
  const std::string message = message_of<Error>([&] { merge(files, rules); });
  CHECK(testing::is_one_line(message));
  return message;
}

constexpr MergeRules kGaps{true, false};
constexpr MergeRules kOverlaps{false, true};

/// The files of all shards but some.
std::vector<fs::path> shards(const TemporaryFolder& folder, std::int64_t selected, std::int64_t count) {
  std::vector<fs::path> files;
  for (std::int64_t index = 1; index <= count; ++index) {
    const Shard shard{index, count};
    files.push_back(folder.write("s" + std::to_string(index) + ".jsonl", batch_file(selected, shard, selected)));
  }
  return files;
}

TEST_CASE("the merge of all shards in any order is the file of the whole") {
  for (const std::int64_t selected : {0, 1, 5, 40}) {
    const std::string whole = batch_file(selected, {}, selected);
    for (const std::int64_t count : {1, 2, 3, 7}) {
      const TemporaryFolder folder;
      auto files = shards(folder, selected, count);
      const auto merged = merge(files);
      CHECK(merged.text == whole);
      CHECK(merged.report.lines == selected);
      CHECK(merged.report.selected == selected);
      CHECK(merged.report.missing.empty());
      std::rotate(files.begin(), files.begin() + 1, files.end());
      CHECK(merge(files).text == whole);
    }
  }
}

TEST_CASE("lines are taken byte for byte") {
  const TemporaryFolder folder;
  const std::string odd =
      R"({ "status" : "traced", "later":[1e5, 1E5, 0.10, {"order": 7}],  "fact":{"x":{"order":9},"order":2})"
      R"(,"schema":"rometrace/trace/1" } )";
  const auto file = folder.write("a", batch_header(2).dump() + "\n" + batch_line(1) + "\n" + odd + "\n");
  CHECK(merge({file}).text == testing::read_bytes(file));
}

TEST_CASE("what a line has raw and Python takes for its end is escaped") {
  const TemporaryFolder folder;
  const auto line = [](const std::string& reason) {
    return R"({"schema":"rometrace/trace/1","status":"skipped","reason":")" + reason + R"(","fact":{"order":1}})";
  };
  const auto header = batch_header(1).dump() + "\n";
  const auto file = folder.write("a", header + line("a\u2028b") + "\n");
  CHECK(merge({file}).text == header + line("a\\u2028b") + "\n");
}

TEST_CASE("a merged file can be merged again with what was missing") {
  const TemporaryFolder folder;
  const auto files = shards(folder, 20, 4);
  const auto part = folder.write("part", merge({files[0], files[2]}, kGaps).text);
  CHECK(merge({files[3], part, files[1]}).text == batch_file(20, {}, 20));
}

TEST_CASE("files of different numbers of shards go together") {
  const TemporaryFolder folder;
  const auto half = folder.write("half", batch_file(20, {1, 2}, 20));
  const auto quarter = folder.write("quarter", batch_file(20, {2, 4}, 20));
  const auto other = folder.write("other", batch_file(20, {4, 4}, 20));
  CHECK(merge({half, quarter, other}).text == batch_file(20, {}, 20));
}

TEST_CASE("facts that no file has are named with the shard that is not there") {
  const TemporaryFolder folder;
  const auto files = shards(folder, 20, 4);
  CHECK(
      refusal({files[0], files[1], files[3]}) ==
      "merge: facts 3, 7, 11, 15 and 19 are missing (no file of shard 3/4 was given); run these shards again with the "
      "same command, which goes on where they stopped, or give --allow-gaps");
  CHECK(refusal({files[0], files[1]}) == Contains("facts 3, 4, 7, 8, 11 and 5 more are missing"));
  CHECK(refusal({files[0], files[1]}) == Contains("(no file of shard 3/4 was given; no file of shard 4/4 was given)"));
}

TEST_CASE("a shard that stopped early is named") {
  const TemporaryFolder folder;
  auto files = shards(folder, 20, 2);
  folder.write("s2.jsonl", batch_file(20, {2, 2}, 17));
  CHECK(refusal(files) == Contains("facts 18 and 20 are missing (" + files[1].string() + " ends after fact 16)"));
  folder.write("s2.jsonl", batch_file(20, {2, 2}, 18));
  CHECK(refusal(files) == Contains("merge: fact 20 is missing (" + files[1].string() + " ends after fact 18)"));
  folder.write("s2.jsonl", batch_file(20, {2, 2}, 0));
  CHECK(refusal(files) == Contains(files[1].string() + " has no facts)"));
}

TEST_CASE("a torn end is a gap, and nothing of it is taken") {
  const TemporaryFolder folder;
  auto files = shards(folder, 10, 2);
  const std::string whole = testing::read_bytes(files[1]);
  const std::size_t last = whole.rfind('\n', whole.size() - 2) + 1;
  for (std::size_t end = last + 1; end < whole.size(); end += 97) {
    folder.write("s2.jsonl", whole.substr(0, end));
    CHECK(refusal(files) ==
          Contains("fact 10 is missing (" + files[1].string() + " ends after fact 8 and is torn there)"));
  }
  folder.write("s2.jsonl", whole.substr(0, whole.size() - 1));
  CHECK(refusal(files) == Contains("fact 10 is missing"));
  const auto merged = merge(files, kGaps);
  CHECK(merged.text == batch_file(10, {}, 9));
  CHECK(merged.report.missing == Contains("fact 10 is missing"));
  CHECK(merged.report.notes ==
        std::vector<std::string>{files[1].string() + ": the end is torn; nothing of it was taken"});
  // Behind the last fact of the shard nothing is missing.
  folder.write("s2.jsonl", whole + std::string(5000, '\0'));
  CHECK(merge(files).text == batch_file(10, {}, 10));
  CHECK(merge(files).report.notes.size() == 1);
}

TEST_CASE("gaps are left where they are allowed") {
  const TemporaryFolder folder;
  const auto files = shards(folder, 9, 3);
  const auto merged = merge({files[1]}, kGaps);
  CHECK(merged.text ==
        batch_header(9).dump() + "\n" + batch_line(2) + "\n" + batch_line(5) + "\n" + batch_line(8) + "\n");
  CHECK(merged.report.lines == 3);
  CHECK(merged.report.missing == Contains("facts 1, 3, 4, 6, 7 and 1 more are missing"));
}

TEST_CASE("a fact in two files is refused unless allowed, and then the first file's line stays") {
  const TemporaryFolder folder;
  const auto a = folder.write("a", batch_header(2).dump() + "\n" + batch_line(1) + "\n" + batch_line(2) + "\n");
  std::string other = batch_line(2);
  other.replace(other.find("0.25"), 4, "0.75");
  const auto b = folder.write("b", batch_header(2).dump() + "\n" + other + "\n");
  CHECK(refusal({a, b}) == b.string() + ": line 2: fact 2 is in " + a.string() +
                               " as well; expected each fact once; leave one of the files out, or give "
                               "--allow-overlaps, which keeps the lines of the file named first");
  CHECK(merge({a, b}, kOverlaps).text == testing::read_bytes(a));
  CHECK(merge({a, b}, kOverlaps).report.overlaps == 1);
  const auto turned = merge({b, a}, kOverlaps);
  CHECK(turned.text == batch_header(2).dump() + "\n" + batch_line(1) + "\n" + other + "\n");
  folder.write("b", batch_header(2).dump() + "\n" + batch_line(2, "skipped") + "\n");
  CHECK(refusal({a, b}, kOverlaps) == Contains("\"traced\" there and \"skipped\" here; expected the same"));
}

TEST_CASE("files of other settings are refused with the difference named") {
  const TemporaryFolder folder;
  auto files = shards(folder, 10, 2);
  auto header = batch_header(10, {2, 2});
  const std::string lines = testing::read_bytes(files[1]).substr(header.dump().size());
  const auto with = [&](const nlohmann::ordered_json& changed) {
    folder.write("s2.jsonl", changed.dump() + lines);
    return refusal(files);
  };
  auto changed = header;
  changed["run"]["samples"] = 2;
  CHECK(with(changed) == files[1].string() + ": was made with run.samples 2, " + files[0].string() +
                             " with 10; expected results of the same settings; merge them apart");
  changed = header;
  changed["facts"]["files"][0]["sha256"] = "c";
  CHECK(with(changed) == Contains("facts.files[0].sha256 \"c\""));
  changed = header;
  changed["facts"]["selected"] = 11;
  CHECK(with(changed) == Contains("facts.selected 11, "));
  changed = header;
  changed["new"] = {{"x", 1}};
  CHECK(with(changed) == Contains("new {\"x\":1}, " + files[0].string() + " with nothing"));
}

TEST_CASE("what is no shard of a batch is refused and named") {
  const TemporaryFolder folder;
  const auto good = folder.write("good", batch_file(10, {1, 2}, 10));
  const std::string header = batch_header(10, {2, 2}).dump() + "\n";
  const auto with = [&](const std::string& text) {
    const auto bad = folder.write("bad", text);
    const std::string message = refusal({good, bad});
    CHECK(message == Contains(bad.string() + ": "));
    return message;
  };
  CHECK(with("") == Contains("is empty"));
  CHECK(with(batch_line(1) + "\n") == Contains("so it holds no batch"));
  CHECK(with("{}\n") == Contains("expected the header of a batch's results"));
  CHECK(with("[1]\n") == Contains("expected the header of a batch's results"));
  CHECK(with("text\n") == Contains("its first line is \"text\""));
  CHECK(with(std::string(100, '\0')) == Contains("expected the header"));
  CHECK(with(header.substr(0, 200)) == Contains("its header is cut short"));
  CHECK(with(header + batch_line(2) + "\n" + batch_line(3) + "\n") ==
        Contains("line 3: is fact 3, which is not in shard 2/2"));
  CHECK(with(header + batch_line(4) + "\n" + batch_line(2) + "\n") == Contains("line 3: is fact 2, behind fact 4"));
  CHECK(with(header + batch_line(2) + "\n" + batch_line(2) + "\n") == Contains("line 3: is fact 2, behind fact 2"));
  CHECK(with(header + batch_line(12) + "\n") == Contains("line 2: is fact 12; expected one of the 10"));
  CHECK(with(header + batch_line(2) + "\ngarbled\n" + batch_line(4) + "\n") ==
        Contains("line 3 is damaged, and line 4 behind it is not"));
  CHECK(with(header + "{\"a\":1}\n") == Contains("line 2: is no line of a batch's results"));
  CHECK(refusal({folder.path() / "absent"}) == Contains("no such file"));
  CHECK(refusal({folder.path()}) == Contains("is a folder"));
  CHECK(refusal({}) == Contains("no files given"));
}

TEST_CASE("a file that is being written is refused") {
  const TemporaryFolder folder;
  const auto files = shards(folder, 4, 2);
  const int descriptor = ::open(files[1].c_str(), O_RDWR);
  REQUIRE(::flock(descriptor, LOCK_EX) == 0);
  CHECK(refusal(files) == files[1].string() + ": another rometrace (process " + std::to_string(::getpid()) +
                              ") is writing it; wait for it to end");
  ::close(descriptor);
  CHECK(merge(files).report.lines == 4);
}

TEST_CASE("a pipe can be merged") {
  const TemporaryFolder folder;
  const auto files = shards(folder, 200, 2);
  const std::string text = testing::read_bytes(files[0]);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::thread writer([&] {
    for (std::size_t i = 0; i < text.size();) {
      const ssize_t count = ::write(ends[1], text.data() + i, text.size() - i);
      if (count <= 0) break;
      i += static_cast<std::size_t>(count);
    }
    ::close(ends[1]);
  });
  const auto merged = merge({"/dev/fd/" + std::to_string(ends[0]), files[1]});
  writer.join();
  ::close(ends[0]);
  CHECK(merged.text == batch_file(200, {}, 200));
}

TEST_CASE("a request to stop ends a merge") {
  const TemporaryFolder folder;
  const auto files = shards(folder, 4, 2);
  std::stop_source stop;
  stop.request_stop();
  CHECK_THROWS_AS(merge_results(
                      files, {}, [](std::string_view) {}, stop.get_token()),
                  Interrupted);
}

}  // namespace
}  // namespace rometrace::merge_test
