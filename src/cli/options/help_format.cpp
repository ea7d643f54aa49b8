#include "cli/options/help_format.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstddef>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "report/display_text.hpp"

namespace rometrace::cli {
namespace {

constexpr int kHelpColumns = 80;
constexpr std::size_t kNameColumns = 26;  // of options and commands, before what is said of them

/// Each line of `text`, in ASCII, as lines that fit, the second and further ones behind `indent` spaces.
std::string wrapped_lines(const std::string& text, int indent) {
  std::istringstream lines(text);
  std::string all;
  for (std::string line; std::getline(lines, line);) {
    all += static_cast<int>(line.size()) <= kHelpColumns ? line + "\n" : wrap(line, kHelpColumns, indent);
  }
  return all;
}

/// "  --name TYPE   What it is, in as many lines as it takes"
std::string entry(const std::string& name, const std::string& description) {
  std::string text = "  " + name;
  const bool beside = text.size() + 2 <= kNameColumns;
  if (beside) text.resize(kNameColumns, ' ');
  std::istringstream lines(wrap(description, kHelpColumns - static_cast<int>(kNameColumns)));
  bool first = true;
  for (std::string line; std::getline(lines, line);) {
    if (!first || !beside) text += "\n" + std::string(kNameColumns, ' ');
    text += line;
    first = false;
  }
  return text + "\n";
}

std::string name_of(const CLI::Option& option) {
  if (option.get_positional()) {
    return option.get_name(true, false) + (option.get_expected_max() > 1 ? "..." : "");
  }
  std::string name;
  for (const char c : option.get_name(false, true)) name += c == ',' ? std::string(", ") : std::string(1, c);
  return option.get_type_size() == 0 ? name : name + " " + option.get_type_name();
}

std::string description_of(const CLI::Option& option) {
  auto text = option.get_description();
  if (option.get_type_size() != 0 && !option.get_default_str().empty()) text += " [" + option.get_default_str() + "]";
  if (option.get_required() && !option.get_positional()) text += " (required)";
  return text;
}

std::string usage_of(const CLI::App& app, const std::string& name) {
  std::string text = "Usage: " + name + " [options]";
  for (const auto* option : app.get_options()) {
    if (option->get_positional()) text += " " + name_of(*option);
  }
  if (!app.get_subcommands(nullptr).empty()) text += "\n       " + name + " COMMAND [options]";
  return text + "\n";
}

std::string options_of(const CLI::App& app) {
  std::vector<std::pair<std::string, std::string>> groups;
  for (const auto* option : app.get_options()) {
    const auto same = [&](const auto& group) { return group.first == option->get_group(); };
    auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) group = groups.insert(group, {option->get_group(), ""});
    group->second += entry(name_of(*option), description_of(*option));
  }
  std::string text;
  for (const auto& [heading, entries] : groups) text += "\n" + heading + ":\n" + entries;
  return text;
}

std::string commands_of(const CLI::App& app) {
  std::string text;
  for (const auto* command : app.get_subcommands(nullptr))
    text += entry(command->get_name(), command->get_description());
  return text.empty() ? text : "\nCommands (each has its own --help):\n" + text;
}

/// Writes all of it: CLI11's own formatter breaks no lines.
class HelpFormat : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode /*mode*/) const override {
    constexpr int kFooterIndent = 2;
    auto text = wrapped_lines(app->get_description(), 0) + "\n" + usage_of(*app, name) + options_of(*app);
    text += commands_of(*app);
    if (!app->get_footer().empty()) text += "\n" + wrapped_lines(app->get_footer(), kFooterIndent);
    return text;
  }
};

}  // namespace

void add_help(CLI::App& app, std::string footer) {
  app.formatter(std::make_shared<HelpFormat>());
  app.footer(std::move(footer));
  const auto group = app.get_options().back()->get_group();
  app.set_help_flag("-h,--help", "Print this help and exit")->group(group);
}

}  // namespace rometrace::cli
