#include "rometrace/study/summary_reader.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>
#include <utility>

namespace rometrace {
namespace {

using nlohmann::json;

constexpr const char* kAdvice =
    "; expected one JSON object a line, as rometrace writes them: the file is damaged there";

[[noreturn]] void damaged(std::string_view where, const std::string& what) {
  throw DamagedLine(std::string(where) + ": " + what + kAdvice);
}

/// Builds the line from the parser's events. Nine tenths of a line are the grids' numbers: the scores go straight into
/// vectors, the rest of the grids nowhere.
class LineBuilder {
 public:
  explicit LineBuilder(std::string_view where) : where_(where) {}

  SummaryLine take() {
    line_.json = std::move(root_);
    return std::move(line_);
  }

  bool null() { return mode_ == Mode::kBuild ? add(nullptr) : number(std::numeric_limits<double>::quiet_NaN()); }
  bool boolean(bool value) { return mode_ == Mode::kBuild ? add(value) : number_expected(); }
  bool number_integer(json::number_integer_t value) { return add_number(value); }
  bool number_unsigned(json::number_unsigned_t value) { return add_number(value); }
  bool number_float(json::number_float_t value, const std::string&) { return add_number(value); }
  bool string(std::string& value) { return mode_ == Mode::kBuild ? add(std::move(value)) : number_expected(); }
  bool binary(json::binary_t&) { return false; }  // JSON text has none

  bool start_object(std::size_t) {
    deepen();
    if (mode_ == Mode::kGrid && depth_ > kInGrid) return number_expected();
    return mode_ != Mode::kBuild || open(json::object());
  }

  bool start_array(std::size_t) {
    deepen();
    if (mode_ == Mode::kBuild) return open(json::array());
    return !in_scores() || depth_ <= kInRow || number_expected();
  }

  bool end_object() {
    --depth_;
    return close();
  }

  bool end_array() {
    if (in_scores() && depth_ == kInRow) end_row();
    --depth_;
    return close();
  }

  bool key(std::string& name) {
    if (depth_ == 1) {
      mode_ = name == "grids" ? Mode::kGrid : name == "token_bytes" || name == "token_ids" ? Mode::kSkip : Mode::kBuild;
    }
    if (mode_ == Mode::kBuild) {
      slot_ = &(*open_.back())[name];
    } else if (mode_ == Mode::kGrid && depth_ == kInGrids) {
      line_.grids.emplace_back().kind = std::move(name);
      field_ = Field::kOther;
    } else if (mode_ == Mode::kGrid && depth_ == kInGrid) {
      field_ = name == "scores" ? Field::kScores : name == "window" ? Field::kWindow : Field::kOther;
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) {
    damaged(where_, "byte " + std::to_string(position) + ": not JSON");
  }

 private:
  enum class Mode { kBuild, kSkip, kGrid };
  enum class Field { kScores, kWindow, kOther };

  // Depths: {"grids": {"mlp": {"scores": [[0.1, ...], ...]}}}
  static constexpr int kInGrids = 2;
  static constexpr int kInGrid = 3;
  static constexpr int kInRow = 5;

  bool in_grid() const { return mode_ == Mode::kGrid && !line_.grids.empty(); }
  bool in_scores() const { return in_grid() && depth_ > kInGrid && field_ == Field::kScores; }

  void deepen() {
    constexpr int kDeepest = 64;
    if (++depth_ > kDeepest) damaged(where_, "nested deeper than " + std::to_string(kDeepest) + " levels");
  }

  template <typename Number>
  bool add_number(Number value) {
    return mode_ == Mode::kBuild ? add(value) : number(static_cast<double>(value));
  }

  bool number(double value) {
    if (!in_grid()) return true;
    if (depth_ == kInGrid && field_ == Field::kWindow) {
      line_.grids.back().window = value >= 0 && value < 1e6 ? static_cast<std::int64_t>(value) : 0;
    } else if (in_scores()) {
      if (depth_ != kInRow) return number_expected();
      line_.grids.back().scores.push_back(value);
    }
    return true;
  }

  bool number_expected() {
    if (mode_ == Mode::kGrid && (in_scores() || depth_ <= kInGrid))
      damaged(where_, "a grid is no list of rows of numbers");
    return true;
  }

  void end_row() {
    auto& grid = line_.grids.back();
    const auto count = static_cast<std::int64_t>(grid.scores.size());
    ++grid.tokens;
    if (grid.tokens == 1) grid.layers = count;
    if (grid.layers == 0 || count != grid.tokens * grid.layers) damaged(where_, "the rows of a grid differ in length");
  }

  json& place(json value) {
    if (open_.empty()) return root_ = std::move(value);
    json& parent = *open_.back();
    if (parent.is_array()) return parent.emplace_back(std::move(value));
    return *slot_ = std::move(value);
  }

  bool add(json value) {
    place(std::move(value));
    return true;
  }

  bool open(json container) {
    open_.push_back(&place(std::move(container)));
    return true;
  }

  bool close() {
    if (mode_ == Mode::kBuild || depth_ == 0) open_.pop_back();
    return true;
  }

  std::string_view where_;
  SummaryLine line_;
  json root_;
  std::vector<json*> open_;  // from the root inwards; a container does not move while it is open
  json* slot_ = nullptr;     // where the value of the name just read goes
  Mode mode_ = Mode::kBuild;
  Field field_ = Field::kOther;
  int depth_ = 0;
};

SummaryLine::Type type_of(const SummaryLine& line) {
  const auto schema = line.json.find("schema");
  if (schema != line.json.end() && schema->is_string()) {
    if (*schema == "rometrace/trace/1") return SummaryLine::Type::kTrace;
    if (*schema == "rometrace/batch/1") return SummaryLine::Type::kHeader;
    if (*schema == "rometrace/probe/1") return SummaryLine::Type::kProbe;
  }
  const std::string found = schema == line.json.end() ? "no schema"
                            : schema->is_string()     ? "schema " + in_quotes(schema->get<std::string>())
                                                      : "a schema that is no text";
  throw Error(line.where + ": " + found + "; expected rometrace/trace/1, rometrace/probe/1 or rometrace/batch/1, as " +
              "rometrace --facts writes them");
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

SummaryLine parse_summary_line(std::string_view text, std::string_view where) {
  // The parser takes a zero byte for the end of the text.
  if (const auto zero = text.find('\0'); zero != std::string_view::npos) {
    damaged(where, "byte " + std::to_string(zero + 1) + ": a zero byte");
  }
  LineBuilder builder(where);
  json::sax_parse(text.begin(), text.end(), &builder);
  auto line = builder.take();
  line.where = where;
  if (!line.json.is_object()) damaged(where, "not an object");
  line.type = type_of(line);
  return line;
}

SummaryReader::SummaryReader(const std::string& name, std::stop_token stop) : stop_(std::move(stop)) {
  if (name == "-") {
    descriptor_ = STDIN_FILENO;
    label_ = "standard input";
  } else {
    file_ = InputFile::open(name);
    descriptor_ = file_->descriptor();
    label_ = file_->label();
  }
}

bool SummaryReader::next(SummaryLine& line) {
  while (const auto text = next_text()) {
    if (is_blank(*text)) continue;
    try {
      line = parse_summary_line(*text, label_ + ", line " + std::to_string(number_));
      return true;
    } catch (const DamagedLine&) {
      if (next_text()) throw;
      torn_ = true;
      return false;
    }
  }
  return false;
}

std::optional<std::string_view> SummaryReader::next_text() {
  while (true) {
    const auto end = buffer_.find('\n', scanned_);
    if (end != std::string::npos) {
      const auto text = std::string_view(buffer_).substr(begin_, end - begin_);
      begin_ = scanned_ = end + 1;
      ++number_;
      return text;
    }
    scanned_ = buffer_.size();
    if (!read_more()) break;
  }
  if (begin_ == buffer_.size()) return std::nullopt;
  ++number_;
  return std::string_view(buffer_).substr(std::exchange(begin_, buffer_.size()));
}

bool SummaryReader::read_more() {
  constexpr std::size_t kStep = 1U << 18U;
  constexpr std::size_t kLongestLine = 1U << 28U;
  if (stop_.stop_requested()) throw Interrupted();
  if (ended_) return false;
  buffer_.erase(0, begin_);
  scanned_ -= std::exchange(begin_, 0);
  if (buffer_.size() > kLongestLine) {
    throw Error(label_ + ", line " + std::to_string(number_ + 1) +
                ": longer than 256 MiB; expected results of rometrace");
  }
  const auto before = buffer_.size();
  buffer_.resize(before + kStep);
  ssize_t count = -1;
  while (count < 0) {
    // In a read() that waits for a pipe's writer a request to stop would not be seen.
    constexpr int kMilliseconds = 100;
    pollfd ready{descriptor_, POLLIN, 0};
    if (::poll(&ready, 1, kMilliseconds) <= 0) {
      if (stop_.stop_requested()) throw Interrupted();
      continue;
    }
    count = ::read(descriptor_, buffer_.data() + before, kStep);
    if (count < 0 && errno != EINTR && errno != EAGAIN) {
      throw Error(label_ + ": cannot be read: " + std::generic_category().message(errno));
    }
  }
  buffer_.resize(before + static_cast<std::size_t>(count));
  bytes_read_ += static_cast<std::uint64_t>(count);
  ended_ = count == 0;
  return !ended_;
}

}  // namespace rometrace
