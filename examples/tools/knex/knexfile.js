module.exports = {
  client: 'pg',
  // Where the server is, pg takes from PGHOST, PGDATABASE and so on.
  connection: {},
  pool: {
    // What the server says while a CALL runs.
    afterCreate(connection, done) {
      connection.on('notice', (notice) => console.log(`${notice.severity}: ${notice.message}`));
      done();
    },
  },
};
