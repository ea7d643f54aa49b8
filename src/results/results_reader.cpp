#include "rometrace/results/results_reader.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/trace/noise.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kFirstBuffer = std::size_t{1} << 18U;
constexpr std::size_t kLongestLine = std::size_t{1} << 28U;    // a 48-layer model's 1024 tokens take 10 MB
constexpr std::uint64_t kReadWhole = std::uint64_t{4} << 20U;  // bytes at the end of a file

/// Finds "schema", "status" and the fact's "order" in a line, and stops the parser as soon as it has them.
class HeadFinder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::optional<std::string> schema, status;
  std::optional<std::int64_t> order;
  bool broken = false;  ///< not JSON

  bool null() override { return go_on(); }
  bool boolean(bool) override { return go_on(); }
  bool number_integer(std::int64_t value) override { return take(value); }
  bool number_unsigned(std::uint64_t value) override {
    return value > std::uint64_t{INT64_MAX} ? go_on() : take(static_cast<std::int64_t>(value));
  }
  bool number_float(double, const std::string&) override { return go_on(); }
  bool string(std::string& value) override {
    if (depth_ == 1 && key_ == "schema") schema = value;
    if (depth_ == 1 && key_ == "status") status = value;
    return go_on();
  }
  bool binary(nlohmann::json::binary_t&) override { return false; }  // JSON text has none
  bool start_object(std::size_t) override {
    if (depth_ == 1) in_fact_ = key_ == "fact";
    ++depth_;
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override {
    ++depth_;
    return true;
  }
  bool end_array() override { return close(); }
  bool key(std::string& name) override {
    if (depth_ <= 2) key_ = name;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override {
    broken = true;
    return false;
  }

 private:
  bool take(std::int64_t value) {
    if (depth_ == 2 && in_fact_ && key_ == "order") order = value;
    return go_on();
  }
  bool close() {
    --depth_;
    if (depth_ == 1) in_fact_ = false;
    return true;
  }
  bool go_on() const { return !schema || !status || !order; }

  int depth_ = 0;
  bool in_fact_ = false;
  std::string key_;  // the last one of the outermost two levels
};

/// The schema of a batch's lines, without its number. What `edit` writes of one edit is no line.
std::string lines_of(const std::string& command) {
  return "rometrace/" + (command == "edit" ? "edited-fact" : command) + "/";
}

bool is_json(std::string_view text) {
  return text.find('\0') == std::string_view::npos && nlohmann::json::accept(text.begin(), text.end());
}

/// A value as messages show it.
std::string shown_or_missing(const Json* value) {
  constexpr std::size_t kWidth = 60;
  if (value == nullptr) return "nothing";
  return one_line(value->dump(-1, ' ', false, Json::error_handler_t::replace), kWidth);
}

void add_differences(const Json* there, const Json* here, const std::string& path,
                     std::vector<HeaderDifference>& found);

void add_members(const Json& there, const Json& here, const std::string& path, std::vector<HeaderDifference>& found) {
  const auto member = [](const Json& object, const std::string& name) {
    const auto place = object.find(name);
    return place == object.end() ? nullptr : &*place;
  };
  const std::string prefix = path.empty() ? "" : path + ".";
  for (const auto& [name, value] : here.items()) add_differences(member(there, name), &value, prefix + name, found);
  for (const auto& [name, value] : there.items()) {
    if (!here.contains(name)) add_differences(&value, nullptr, prefix + name, found);
  }
}

void add_differences(const Json* there, const Json* here, const std::string& path,
                     std::vector<HeaderDifference>& found) {
  if (there != nullptr && here != nullptr) {
    // As unordered values: the order of an object's members means nothing.
    if (nlohmann::json(*there) == nlohmann::json(*here)) return;
    if (there->is_object() && here->is_object()) return add_members(*there, *here, path, found);
    const bool are_lists = there->is_array() && here->is_array() && there->size() == here->size();
    if (are_lists && std::all_of(here->begin(), here->end(), [](const Json& item) { return item.is_object(); })) {
      for (std::size_t i = 0; i < here->size(); ++i) {
        add_differences(&(*there)[i], &(*here)[i], path + "[" + std::to_string(i) + "]", found);
      }
      return;
    }
  }
  found.push_back({one_line(path), shown_or_missing(there), shown_or_missing(here)});
}

std::int64_t number_at(const nlohmann::json& object, const char* name) {
  const auto place = object.find(name);
  const bool fits = place != object.end() && place->is_number_integer() && *place >= 0 && *place <= INT64_MAX;
  return fits ? place->get<std::int64_t>() : -1;
}

}  // namespace

ResultsHeader parse_results_header(std::string_view line, const std::string& where, const std::string& advice) {
  const auto refuse = [&](const std::string& found) { throw Error(where + ": " + found + "; " + advice); };
  const std::string expected = "; expected the header of a batch's results (" + std::string(kBatchSchema) + ")";
  if (!is_json(line)) refuse("its first line is " + in_quotes(line, 40) + expected);
  const auto json = parse_json(line, where);
  const auto schema = json.is_object() ? json.value("schema", nlohmann::json()) : nlohmann::json();
  if (schema.is_string() && schema.get<std::string>().starts_with("rometrace/") && schema != kBatchSchema) {
    const bool is_batch = schema.get<std::string>().starts_with("rometrace/batch/");
    refuse("its first line is of the schema " + in_quotes(schema.get<std::string>()) +
           (is_batch ? ", of another version of rometrace" : ", so it holds no batch") + expected);
  }
  if (schema != kBatchSchema) refuse("its first line is " + in_quotes(line, 40) + expected);

  ResultsHeader header;
  header.text = line;
  const auto command = json.value("command", nlohmann::json());
  const auto facts = json.value("facts", nlohmann::json());
  header.selected = facts.is_object() ? number_at(facts, "selected") : -1;
  if (!command.is_string()) refuse("its header has no \"command\"");
  if (header.selected < 0) refuse("its header has no number of facts at facts.selected");
  header.command = command.get<std::string>();
  if (const auto shard = json.value("shard", nlohmann::json()); !shard.is_null()) {
    header.is_shard = true;
    header.shard = shard.is_object() ? Shard{number_at(shard, "index"), number_at(shard, "count")} : Shard{0, 0};
    if (header.shard.index < 1 || header.shard.index > header.shard.count) {
      const Json value = shard;
      refuse("its header has the shard " + shown_or_missing(&value) +
             "; expected null, or an index from 1 to its count");
    }
  }
  return header;
}

std::vector<HeaderDifference> header_differences(const ResultsHeader& there, const ResultsHeader& here,
                                                 ShardsMay shards) {
  Json a = Json::parse(there.text), b = Json::parse(here.text);
  if (a["command"] != b["command"])
    return {{"command", shown_or_missing(&a["command"]), shown_or_missing(&b["command"])}};
  for (auto* header : {&a, &b}) {  // the bytes tell facts files apart, not their names
    if (header->contains("facts") && (*header)["facts"].contains("files")) {
      for (auto& file : (*header)["facts"]["files"]) file["name"] = nullptr;
    }
  }
  // The weights tell models apart; how the user spelt the folder does not.
  if (a.contains("model") && b.contains("model")) a["model"]["name"] = b["model"]["name"] = nullptr;
  for (auto* header : {&a, &b}) {  // "s3.0" was "s3" already when results had the user's words for it
    const Json::json_pointer rule("/run/noise/rule");
    if (header->contains(rule) && header->at(rule).is_string()) {
      header->at(rule) = in_one_spelling(header->at(rule).get<std::string>());
    }
  }
  if (shards == ShardsMay::kDiffer) a["shard"] = b["shard"] = nullptr;
  std::vector<HeaderDifference> found;
  add_differences(&a, &b, "", found);
  return found;
}

ResultsReader::ResultsReader(std::string label, std::string advice, Read read, std::optional<std::uint64_t> size)
    : label_(std::move(label)), advice_(std::move(advice)), read_(std::move(read)), size_(size), buffer_(kFirstBuffer) {
  const auto line = read_line();
  if (!line) throw Error(label_ + ": is empty; expected the results of a batch; " + advice_);
  if (!line->whole && line->text.starts_with(R"({"schema":")" + std::string(kBatchSchema) + '"')) {
    throw Error(label_ + ": its header is cut short; " + advice_);
  }
  header_ = parse_results_header(line->text, label_, advice_);
  whole_end_ = offset_;
}

/// Reads on into the buffer. False at the end of the file.
bool ResultsReader::fill() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
  const std::size_t count = read_(std::as_writable_bytes(std::span(buffer_).subspan(end_)));
  end_ += count;
  return count > 0;
}

std::optional<ResultsReader::Raw> ResultsReader::read_line() {
  std::size_t searched = 0;
  bool too_long = false;
  for (;;) {
    const char* start = buffer_.data() + begin_;
    const auto* newline = static_cast<const char*>(std::memchr(start + searched, '\n', end_ - begin_ - searched));
    if (newline != nullptr) {
      const auto size = static_cast<std::size_t>(newline - start);
      begin_ += size + 1;
      offset_ += size + 1;
      ++number_;
      return Raw{{start, size}, !too_long};
    }
    searched = end_ - begin_;
    if (searched >= kLongestLine) {  // no memory for what cannot be a line
      too_long = true;
      offset_ += searched;
      begin_ = end_ = searched = 0;
    }
    if (fill()) continue;
    if (searched == 0 && !too_long) return std::nullopt;
    const Raw rest{{buffer_.data() + begin_, searched}, false};
    begin_ = end_;
    offset_ += searched;
    ++number_;
    return rest;
  }
}

ResultsReader::Head ResultsReader::look_at(const Raw& line) const {
  const std::string_view text = line.text;
  if (!line.whole || text.empty() || text.find('\0') != std::string_view::npos) return {};
  HeadFinder finder;
  nlohmann::json::sax_parse(text.begin(), text.end(), &finder);
  const bool read_whole = text.back() != '}' || !size_ || offset_ + kReadWhole >= *size_;
  if (finder.broken || (read_whole && !is_json(text))) return {};
  const bool is_ours =
      finder.schema && finder.status && finder.order && finder.schema->starts_with(lines_of(header_.command));
  if (!is_ours) return {Kind::kForeign, 0, ""};
  return {Kind::kGood, *finder.order, *finder.status};
}

void ResultsReader::check_place(std::int64_t order) const {
  const std::string fact = "is fact " + std::to_string(order);
  if (order < 1 || order > header_.selected) {
    refuse(fact + "; expected one of the " + std::to_string(header_.selected) + " of the header");
  }
  if (!header_.shard.holds(order))
    refuse(fact + ", which is not in shard " + to_string(header_.shard) + " of the header");
  if (order <= order_) {
    refuse(fact + ", behind fact " + std::to_string(order_) + "; expected the facts in ascending order, each once");
  }
}

/// Reads on to the end, behind a garbled line.
void ResultsReader::skip_torn_tail() {
  const std::uint64_t first = number_;
  torn_ = true;
  while (const auto line = read_line()) {
    if (look_at(*line).kind == Kind::kGarbled) continue;
    throw Error(
        label_ + ": line " + std::to_string(first) + " is damaged, and line " + std::to_string(number_) +
        " behind it is not; expected damage only at the end, as a power cut leaves it; restore the file, or go on "
        "from what is before the damage (head -n " +
        std::to_string(first - 1) + ")");
  }
}

std::optional<ResultsLine> ResultsReader::next() {
  if (ended_) return std::nullopt;
  const auto line = read_line();
  const Head head = line ? look_at(*line) : Head();
  if (!line || head.kind == Kind::kGarbled) {
    ended_ = true;
    if (line) skip_torn_tail();
    return std::nullopt;
  }
  if (head.kind == Kind::kForeign) {
    refuse("is no line of a batch's results; expected the schema " + lines_of(header_.command) +
           "1, a status, and a fact with its order");
  }
  check_place(head.order);
  order_ = head.order;
  whole_end_ = offset_;
  return ResultsLine{line->text, number_, head.order, head.status};
}

void ResultsReader::refuse(const std::string& found) const {
  throw Error(label_ + ": line " + std::to_string(number_) + ": " + found + "; " + advice_);
}

}  // namespace rometrace
