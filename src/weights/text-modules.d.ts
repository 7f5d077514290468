// Text files as modules: the bundler puts the text into the program.
declare module "*.txt" {
  const text: string;
  export default text;
}
